//! rumqttc as a driver of the interop cases: requests come in as lines of JSON, answers and events go out.
//! It ends when its standard input does. ../README.md has the lines.

mod lines;
mod v311;
mod v5;

use std::{collections::HashMap, error::Error, sync::Arc};

use lines::{Message, Options, Publish, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
};

/// What an event loop of rumqttc shows, in either version.
pub enum Seen {
    Connected {
        session_present: bool,
    },
    /// The broker has refused the connection, with this reason code.
    Refused(u8),
    Message(Message),
    /// PUBCOMP is on its way: a message with QoS 2 has been received.
    Completed,
    /// A PUBLISH with QoS 0 is on its way.
    Sent,
    /// A PUBLISH is acknowledged.
    Acknowledged {
        reason: u8,
    },
    Subscribed {
        granted: u8,
    },
    Unsubscribed,
    /// DISCONNECT is on its way.
    Left,
    /// The connection has ended; the reason code, if the broker said one.
    Closed(Option<u8>),
    Nothing,
}

#[derive(Deserialize)]
struct Line {
    id: u64,
    on: String,
    #[serde(flatten)]
    request: Request,
}

type Failure = Box<dyn Error + Send + Sync>;
type Shared = Arc<Mutex<Connection>>;

enum Client {
    V311(v311::Client),
    V5(v5::Client),
}

enum Events {
    V311(Box<v311::Events>),
    V5(Box<v5::Events>),
}

/// Calls the same method of either version.
macro_rules! either {
    ($of:ident, $value:expr, $it:ident => $call:expr) => {
        match $value {
            $of::V311($it) => $call,
            $of::V5($it) => $call,
        }
    };
}

struct Connection {
    client: Client,
    /// Everything but messages.
    seen: mpsc::UnboundedReceiver<Seen>,
    /// Messages with QoS 2 whose PUBCOMP has not been sent.
    open: watch::Receiver<usize>,
    events: JoinHandle<()>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut connections: HashMap<String, Shared> = HashMap::new();
    while let Some(line) = input.next_line().await? {
        let Line { id, on, request } = serde_json::from_str(&line)?;
        if let Request::Connect { options } = request {
            let connection = Arc::new(Mutex::new(Connection::new(on.clone(), &options)?));
            connections.insert(on, Arc::clone(&connection));
            tokio::spawn(async move { answer(id, connection.lock().await.connected().await) });
        } else {
            let connection = Arc::clone(connections.get(&on).ok_or("no such connection")?);
            tokio::spawn(async move { answer(id, connection.lock().await.handle(request).await) });
        }
    }
    Ok(())
}

fn answer(id: u64, result: Result<Value, Failure>) {
    match result {
        Ok(mut value) => {
            value["id"] = id.into();
            println!("{value}");
        }
        Err(error) => println!("{}", json!({ "id": id, "error": error.to_string() })),
    }
}

impl Connection {
    fn new(on: String, options: &Options) -> Result<Self, Failure> {
        let (client, events) = if options.version == "5.0" {
            let (client, events) = v5::open(options)?;
            (Client::V5(client), Events::V5(Box::new(events)))
        } else {
            let (client, events) = v311::open(options)?;
            (Client::V311(client), Events::V311(Box::new(events)))
        };
        let (tell, seen) = mpsc::unbounded_channel();
        let (count, open) = watch::channel(0);
        Ok(Self { client, seen, open, events: tokio::spawn(drive(on, events, tell, count)) })
    }

    /// Waits for CONNACK.
    async fn connected(&mut self) -> Result<Value, Failure> {
        match self.next().await? {
            Seen::Connected { session_present } => {
                Ok(json!({ "ok": { "session_present": session_present } }))
            }
            Seen::Refused(reason) => Ok(json!({ "refused": reason })),
            _ => Err("something came before CONNACK".into()),
        }
    }

    async fn handle(&mut self, request: Request) -> Result<Value, Failure> {
        let done = match request {
            Request::Connect { .. } => return Err("it is connected already".into()),
            Request::Subscribe(subscribe) => {
                either!(Client, &self.client, client => client.subscribe(subscribe).await)?;
                let Seen::Subscribed { granted } = self.next().await? else { return Err("no SUBACK".into()) };
                json!({ "granted": granted })
            }
            Request::Unsubscribe { filter } => {
                either!(Client, &self.client, client => client.unsubscribe(filter).await)?;
                let Seen::Unsubscribed = self.next().await? else { return Err("no UNSUBACK".into()) };
                json!({})
            }
            Request::Publish(publish) => json!({ "reason": self.publish(publish).await? }),
            Request::Disconnect => {
                self.complete().await?;
                either!(Client, &self.client, client => client.disconnect().await)?;
                let Seen::Left = self.next().await? else { return Err("no DISCONNECT".into()) };
                json!({})
            }
            Request::Abort => {
                self.complete().await?;
                self.events.abort();
                // The socket is closed when the task is gone.
                let _ = (&mut self.events).await;
                json!({})
            }
        };
        Ok(json!({ "ok": done }))
    }

    /// Publishes without waiting in between, then waits until all are acknowledged.
    async fn publish(&mut self, publish: Publish) -> Result<u8, Failure> {
        for payload in &publish.payloads {
            either!(Client, &self.client, client => client.publish(&publish, payload).await)?;
        }
        let mut worst = 0;
        for _ in &publish.payloads {
            match self.next().await? {
                Seen::Sent => {}
                Seen::Acknowledged { reason } => worst = worst.max(reason),
                _ => return Err("not an acknowledgement".into()),
            }
        }
        Ok(worst)
    }

    /// Waits for the end of every exchange: rumqttc forgets with its connection what it has received, and
    /// takes the PUBREL with which the broker goes on later for an error that ends the next connection.
    async fn complete(&mut self) -> Result<(), Failure> {
        self.open.wait_for(|open| *open == 0).await?;
        Ok(())
    }

    async fn next(&mut self) -> Result<Seen, Failure> {
        self.seen.recv().await.ok_or_else(|| "the connection has ended".into())
    }
}

/// Drives an event loop until its connection ends; rumqttc would connect again.
async fn drive(
    on: String,
    mut events: Events,
    tell: mpsc::UnboundedSender<Seen>,
    open: watch::Sender<usize>,
) {
    loop {
        let seen = either!(Events, &mut events, events => events.next().await);
        match seen {
            Seen::Nothing => {}
            Seen::Message(message) => {
                open.send_modify(|open| *open += usize::from(message.qos == 2));
                println!("{}", json!({ "on": on, "message": message }));
            }
            Seen::Completed => open.send_modify(|open| *open = open.saturating_sub(1)),
            Seen::Closed(reason) => {
                println!("{}", json!({ "on": on, "closed": reason }));
                return;
            }
            last @ (Seen::Left | Seen::Refused(_)) => {
                // Before the answer: whoever waits for it may count on a closed socket.
                drop(events);
                let _ = tell.send(last);
                return;
            }
            seen => drop(tell.send(seen)),
        }
    }
}
