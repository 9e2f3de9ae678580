// MQTT.js: requests come in as lines of JSON, answers and events go out. See ../README.md for the lines.
'use strict'

const fs = require('node:fs')
const readline = require('node:readline')
const mqtt = require('mqtt')

const PROTOCOLS = { tcp: 'mqtt', tls: 'mqtts', ws: 'ws', wss: 'wss' }

// Names of ../README.md, and those of MQTT.js.
const PROPERTIES = {
  content_type: 'contentType',
  response_topic: 'responseTopic',
  message_expiry: 'messageExpiryInterval',
  topic_alias: 'topicAlias',
  will_delay: 'willDelayInterval'
}

class Refused extends Error {
  constructor (code) {
    super(`refused with ${code}`)
    this.code = code
  }
}

const say = (what) => process.stdout.write(JSON.stringify(what) + '\n')

class Connection {
  constructor (options, say) {
    this.isV5 = options.version === '5.0'
    this.say = say
    this.options = options
    this.reason = null
  }

  async connect () {
    const client = this.client = mqtt.connect(this.settings())
    client.on('message', (topic, payload, packet) => this.say({ message: message(topic, payload, packet) }))
    client.on('disconnect', (packet) => { this.reason = packet.reasonCode })
    this.closed = new Promise((resolve) => client.once('close', resolve))
    this.closed.then(() => this.say({ closed: this.reason }))
    return await new Promise((resolve, reject) => {
      client.once('connect', (connack) => resolve({ session_present: connack.sessionPresent }))
      client.once('error', (error) => {
        reject(error.code === undefined || typeof error.code === 'string' ? error : new Refused(error.code))
      })
    })
  }

  settings () {
    const options = this.options
    const isWebSocket = options.transport === 'ws' || options.transport === 'wss'
    return {
      protocol: PROTOCOLS[options.transport],
      host: options.host,
      port: options.port,
      ...(isWebSocket && { path: options.path }),
      ...(options.ca && { ca: [fs.readFileSync(options.ca)] }),
      protocolVersion: this.isV5 ? 5 : 4,
      clientId: options.client_id,
      clean: options.clean,
      username: options.username,
      password: options.password,
      reconnectPeriod: 0,
      // What the session has is for the broker to know.
      resubscribe: false,
      ...(options.will && { will: will(options.will) }),
      ...(this.isV5 && {
        properties: {
          ...(options.session_expiry && { sessionExpiryInterval: options.session_expiry }),
          ...(options.receive_maximum && { receiveMaximum: options.receive_maximum }),
          ...(options.topic_alias_maximum && { topicAliasMaximum: options.topic_alias_maximum })
        }
      })
    }
  }

  async subscribe ({ filter, qos, subscription_id: id, no_local: nl, retain_as_published: rap, retain_handling: rh }) {
    const options = { qos }
    if (this.isV5) {
      Object.assign(options, { nl: nl ?? false, rap: rap ?? false, rh: rh ?? 0 })
      if (id !== undefined) options.properties = { subscriptionIdentifier: id }
    }
    const [granted] = await this.client.subscribeAsync(filter, options)
    return { granted: granted.qos }
  }

  async unsubscribe ({ filter }) {
    await this.client.unsubscribeAsync(filter)
  }

  async publish ({ topic, payloads, qos, retain, properties }) {
    const options = { qos, retain, ...(this.isV5 && { properties: theirs(properties) }) }
    await Promise.all(
      payloads.map((payload) => this.client.publishAsync(topic, Buffer.from(payload, 'base64'), options))
    )
    // MQTT.js shows reason codes of failures alone.
    return { reason: null }
  }

  async disconnect () {
    await this.client.endAsync()
  }

  async abort () {
    this.client.stream.destroy()
    await this.closed
  }
}

function will (given) {
  const properties = theirs(given.properties ?? {})
  return { ...given, payload: Buffer.from(given.payload, 'base64'), properties }
}

function theirs (given) {
  const made = {}
  for (const [name, value] of Object.entries(given)) {
    if (name === 'correlation_data') made.correlationData = Buffer.from(value, 'base64')
    else if (name === 'payload_format') made.payloadFormatIndicator = value === 1
    else if (name === 'user_properties') {
      made.userProperties = {}
      for (const [key, one] of value) made.userProperties[key] = [...(made.userProperties[key] ?? []), one]
    } else made[PROPERTIES[name]] = value
  }
  return made
}

function message (topic, payload, packet) {
  return {
    topic,
    payload: payload.toString('base64'),
    qos: packet.qos,
    retain: packet.retain,
    properties: ours(packet.properties ?? {})
  }
}

function ours (got) {
  const shown = {}
  for (const [name, theirs] of Object.entries(PROPERTIES)) {
    if (got[theirs] !== undefined) shown[name] = got[theirs]
  }
  if (got.correlationData !== undefined) shown.correlation_data = got.correlationData.toString('base64')
  if (got.payloadFormatIndicator !== undefined) shown.payload_format = got.payloadFormatIndicator ? 1 : 0
  if (got.userProperties !== undefined) {
    shown.user_properties = Object.entries(got.userProperties).flatMap(([key, values]) =>
      [values].flat().map((value) => [key, value])
    )
  }
  if (got.subscriptionIdentifier !== undefined) shown.subscription_ids = [got.subscriptionIdentifier].flat()
  return shown
}

const connections = new Map()

async function answer ({ id, do: what, on, ...request }) {
  try {
    if (what === 'connect') connections.set(on, new Connection(request.options, (event) => say({ on, ...event })))
    say({ id, ok: await connections.get(on)[what](request) ?? {} })
  } catch (error) {
    say(error instanceof Refused ? { id, refused: error.code } : { id, error: String(error) })
  }
}

readline.createInterface({ input: process.stdin })
  .on('line', (line) => answer(JSON.parse(line)))
  .on('close', () => process.exit(0))
