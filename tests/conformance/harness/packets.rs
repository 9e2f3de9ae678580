//! The bytes of packets, written down without the broker's own code.

/// The versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V31 = 3,
    V311 = 4,
    V5 = 5,
}

impl Version {
    /// The versions whose statements are proven.
    pub const BOTH: [Self; 2] = [Self::V311, Self::V5];
}

/// A CONNECT.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: Version,
    id: String,
    clean: bool,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<Will>,
    user: Option<(String, Option<String>)>,
}

#[derive(Clone, Debug)]
struct Will {
    flags: u8,
    topic: String,
    payload: Vec<u8>,
    properties: Vec<u8>,
}

/// A PUBLISH.
#[derive(Clone, Debug)]
pub struct Publish {
    first: u8,
    topic: String,
    id: u16,
    properties: Vec<u8>,
    payload: Vec<u8>,
}

impl Connect {
    /// Clean, without keep-alive.
    pub fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            id: id.into(),
            clean: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            user: None,
        }
    }

    pub fn v5(id: &str) -> Self {
        Self::new(Version::V5, id)
    }

    pub fn v311(id: &str) -> Self {
        Self::new(Version::V311, id)
    }

    /// Goes on with the session there is.
    pub fn resuming(mut self) -> Self {
        self.clean = false;
        self
    }

    /// Begins anew.
    pub fn clean(mut self) -> Self {
        self.clean = true;
        self
    }

    /// 5.0: a session that outlives its connection by so many seconds.
    pub fn expiry(self, seconds: u32) -> Self {
        self.property(0x11, &seconds.to_be_bytes())
    }

    /// A session that outlives its connection and is resumed, in any version.
    pub fn durable(self) -> Self {
        if self.version == Version::V5 { self.expiry(600).resuming() } else { self.resuming() }
    }

    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Adds a property.
    pub fn property(mut self, id: u8, value: &[u8]) -> Self {
        self.properties.push(id);
        self.properties.extend_from_slice(value);
        self
    }

    /// Adds a user name, and maybe a password.
    pub fn user(mut self, name: &str, password: Option<&str>) -> Self {
        self.user = Some((name.into(), password.map(Into::into)));
        self
    }

    /// Adds a will with its QoS.
    pub fn will(mut self, topic: &str, payload: &str, qos: u8) -> Self {
        let flags = 4 | qos << 3;
        self.will =
            Some(Will { flags, topic: topic.into(), payload: payload.into(), properties: Vec::new() });
        self
    }

    /// Makes the will a retained one.
    pub fn will_retained(mut self) -> Self {
        self.will.as_mut().unwrap().flags |= 0x20;
        self
    }

    /// Adds a property to the will.
    pub fn will_property(mut self, id: u8, value: &[u8]) -> Self {
        let properties = &mut self.will.as_mut().unwrap().properties;
        properties.push(id);
        properties.extend_from_slice(value);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = string(if self.version == Version::V31 { "MQIsdp" } else { "MQTT" });
        let will = self.will.as_ref().map_or(0, |will| will.flags);
        let user = self.user.as_ref().map_or(0, |(_, password)| 0x80 | u8::from(password.is_some()) << 6);
        body.extend([self.version as u8, user | will | u8::from(self.clean) << 1]);
        body.extend(self.keep_alive.to_be_bytes());
        let properties = |properties: &[u8], body: &mut Vec<u8>| {
            if self.version == Version::V5 {
                body.extend(prefixed(properties));
            }
        };
        properties(&self.properties, &mut body);
        body.extend(string(&self.id));
        if let Some(will) = &self.will {
            properties(&will.properties, &mut body);
            body.extend(string(&will.topic));
            body.extend((will.payload.len() as u16).to_be_bytes());
            body.extend(&will.payload);
        }
        for text in self.user.iter().flat_map(|(name, password)| [Some(name), password.as_ref()]).flatten() {
            body.extend(string(text));
        }
        packet(0x10, &body)
    }
}

impl Publish {
    /// QoS 0.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref().to_vec();
        Self { first: 0x30, topic: topic.into(), id: 0, properties: Vec::new(), payload }
    }

    pub fn qos(mut self, qos: u8, id: u16) -> Self {
        self.first |= qos << 1;
        self.id = id;
        self
    }

    pub fn retain(mut self) -> Self {
        self.first |= 1;
        self
    }

    pub fn dup(mut self) -> Self {
        self.first |= 8;
        self
    }

    pub fn property(mut self, id: u8, value: &[u8]) -> Self {
        self.properties.push(id);
        self.properties.extend_from_slice(value);
        self
    }

    pub fn v5(&self) -> Vec<u8> {
        self.bytes(Version::V5)
    }

    pub fn v311(&self) -> Vec<u8> {
        self.bytes(Version::V311)
    }

    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = string(&self.topic);
        if self.first & 6 != 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == Version::V5 {
            body.extend(prefixed(&self.properties));
        }
        body.extend(&self.payload);
        packet(self.first, &body)
    }
}

/// A SUBSCRIBE of 5.0.
pub fn subscribe(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    subscribe_with(id, &[], filters)
}

/// A SUBSCRIBE of 5.0 with properties.
pub fn subscribe_with(id: u16, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend(prefixed(properties));
    for (filter, options) in filters {
        body.extend(string(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// A SUBSCRIBE of 3.1.1.
pub fn subscribe_v311(id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    for (filter, qos) in filters {
        body.extend(string(filter));
        body.push(*qos);
    }
    packet(0x82, &body)
}

/// An UNSUBSCRIBE of 5.0.
pub fn unsubscribe(id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.push(0);
    filters.iter().for_each(|filter| body.extend(string(filter)));
    packet(0xA2, &body)
}

/// An UNSUBSCRIBE of 3.1.1.
pub fn unsubscribe_v311(id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    filters.iter().for_each(|filter| body.extend(string(filter)));
    packet(0xA2, &body)
}

/// SUBACK or UNSUBACK of 5.0 (`first` is 0x90 or 0xB0).
pub fn suback(first: u8, id: u16, reasons: &[u8]) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()[..], &[0], reasons].concat())
}

/// SUBACK of 3.1.1.
pub fn suback_v311(id: u16, codes: &[u8]) -> Vec<u8> {
    packet(0x90, &[&id.to_be_bytes()[..], codes].concat())
}

/// PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70 or UNSUBACK of 3.1.1 0xB0.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

/// As [`ack`], with a reason code.
pub fn ack_with(first: u8, id: u16, reason: u8) -> Vec<u8> {
    packet(first, &[&id.to_be_bytes()[..], &[reason]].concat())
}

/// A DISCONNECT of 5.0 with properties.
pub fn disconnect(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xE0, &[&[reason][..], &prefixed(properties)].concat())
}

/// An AUTH.
pub fn auth(reason: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let data = match data {
        [] => Vec::new(),
        data => [&[0x16][..], &(data.len() as u16).to_be_bytes(), data].concat(),
    };
    auth_with(reason, &[&[0x15][..], &string(method), &data].concat())
}

/// An AUTH with any properties.
pub fn auth_with(reason: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xF0, &[&[reason][..], &prefixed(properties)].concat())
}

/// Any packet.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [&[first][..], &prefixed(body)].concat()
}

/// A string with its length.
pub fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Bytes with their length as a variable byte integer.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let (mut prefixed, mut length) = (Vec::new(), bytes.len());
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        prefixed.push((length & 0x7F) as u8 | more);
        length >>= 7;
        if length == 0 {
            prefixed.extend_from_slice(bytes);
            return prefixed;
        }
    }
}
