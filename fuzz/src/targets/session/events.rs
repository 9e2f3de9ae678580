//! What can happen to a session, one step at a time.

use std::num::NonZeroU16;
use std::time::Duration;

use causeway::codec::{
    Ack, Decoder, Disconnect, Packet, PacketId, Publish, Qos, ReasonCode, Suback, Subscribe, SubscribeFilter,
    SubscribeOptions, Unsubscribe, Version,
};
use causeway::record::{Lsn, Message, MessageParts, SubscriptionIds, UnixMillis};
use causeway::session::{Claim, Close, Delivery, Dropped, Incoming, Offer, Outcome, Receipt, ReplyPacket};
use causeway::topic::TopicName;

use super::client::Answer;
use super::model::{Held, Open, Wait, publish};
use super::store::{GROUP, Item, OWN, Record};
use super::{End, Input, TOPIC_LEVELS, Verdict, World, qos};
use crate::targets::{packets, topics};

use causeway::record::ExchangeState::{AwaitingPuback, AwaitingPubcomp, AwaitingPubrec};

impl World {
    /// One event.
    pub fn step(&mut self, input: &mut Input<'_>) {
        match input.below(16) {
            0..3 => self.deliver_new(input),
            3 => self.deliver_owed(),
            4 | 5 => self.report(),
            6 => {
                self.store.commit();
            }
            7 => self.store.commit_all(),
            8 | 9 => self.write(),
            10 => self.resend(input.byte()),
            11 => self.pass_time(input.byte()),
            12 => self.reconnect(input.pick(&[End::Crash, End::Orderly, End::Torn])),
            13 if !self.setup.honest => self.receive_raw(input),
            _ => self.client_acts(input),
        }
    }

    // ---- towards the client

    fn deliver_new(&mut self, input: &mut Input<'_>) {
        let (qos, flags) = (qos(input), input.byte());
        let owner = match flags & 3 {
            0 => Some(GROUP),
            // What a session outlives its connection for is owed to it.
            _ if self.setup.durable && qos > Qos::AtMostOnce => Some(OWN),
            _ => None,
        };
        let life = Duration::from_secs(u64::from(flags >> 6));
        let item = Item {
            number: self.store.number(),
            qos,
            owner,
            topic: ["t", "a/long/topic", "é"][usize::from(flags >> 2 & 3) % 3],
            payload_len: [0, 5, 600][usize::from(flags >> 4 & 3) % 3],
            retain: flags & 16 != 0,
            subscription_ids: [vec![], vec![1], vec![268_435_455, 7]][usize::from(flags >> 5) % 3].clone(),
            published_at: self.now,
            expires_at: if flags >> 6 == 0 { UnixMillis::NEVER } else { self.now.plus(life) },
        };
        if item.owner.is_some() {
            self.store.owed.insert(item.number, item.clone());
        }
        if item.owner == Some(OWN) && item.qos > Qos::AtMostOnce {
            self.promised.insert(item.number);
        }
        // Nothing overtakes what was begun on an earlier connection, nor what is owed from before.
        if self.session.has_resends() || (item.owner == Some(OWN) && !self.backlog.is_empty()) {
            return self.give_back(&item, 0);
        }
        self.deliver(item);
    }

    /// The next message that is owed and was not sent on this connection. First what was begun.
    pub fn deliver_owed(&mut self) {
        if self.session.has_resends() {
            return self.resend(0);
        }
        let Some(number) = self.backlog.pop() else { return };
        if let Some(item) = self.store.owed.get(&number).cloned() {
            self.deliver(item);
        }
    }

    fn deliver(&mut self, item: Item) {
        let expected = self.expected_outcome(&item);
        let outcome = self.session.deliver(self.now, delivery(&item), &mut self.out);
        assert_eq!(outcome, expected, "{item:?}");
        let packets = self.sent();
        let is_held = item.qos == Qos::ExactlyOnce && item.owner.is_some() && self.setup.durable;
        match outcome {
            Outcome::NoWindow => self.give_back(&item, self.backlog.len()),
            Outcome::Dropped(_) => self.give_up(&item),
            Outcome::Taken if is_held => self.model.held.push_back(Held { item, report: None }),
            Outcome::Taken => {
                let doubtful = Lsn(item.number) < self.store.progress.doubtful_before && self.setup.durable;
                let dup = item.qos == Qos::AtLeastOnce && item.owner.is_some() && doubtful;
                return self.take_publish(packets, &item, dup);
            }
        }
        assert!(packets.is_empty(), "sent too early");
    }

    fn expected_outcome(&self, item: &Item) -> Outcome {
        if item.expires_at <= self.now {
            return Outcome::Dropped(Dropped::Expired);
        }
        if item.qos > Qos::AtMostOnce && !self.session.has_window() {
            return Outcome::NoWindow;
        }
        if self.model.fits(item, self.now) { Outcome::Taken } else { Outcome::Dropped(Dropped::TooLarge) }
    }

    /// A message whose turn has not come is owed still, so many others after it, or somebody else of the
    /// group gets it.
    fn give_back(&mut self, item: &Item, before: usize) {
        match item.owner {
            Some(OWN) => self.backlog.insert(before, item.number),
            Some(_) => drop(self.store.owed.remove(&item.number)),
            None => {}
        }
    }

    /// A message that the client does not get is settled.
    fn give_up(&mut self, item: &Item) {
        self.model.settle(item.number, item.owner);
        self.promised.remove(&item.number);
    }

    /// Checks the one PUBLISH that was sent, and hands it to the client.
    fn take_publish(&mut self, bytes: Vec<u8>, item: &Item, dup: bool) {
        let mut decoder = Decoder::client(self.setup.version, self.terms.max_packet_size);
        let Ok(Some((Packet::Publish(publish), len))) = decoder.decode(&bytes) else {
            panic!("no PUBLISH that the client takes: {bytes:02x?}")
        };
        assert_eq!(len, bytes.len(), "one packet");
        self.model.check_publish(&publish, item, dup, self.now);
        let Some(id) = publish.packet_id else { return self.model.settle(item.number, item.owner) };
        let state = if item.qos == Qos::AtLeastOnce { AwaitingPuback } else { AwaitingPubrec };
        let open = Open { state, number: item.number, owner: item.owner };
        let is_waiting = self.model.waiting.iter().any(|(waiting, _)| *waiting == id.get());
        assert!(
            !is_waiting && self.model.sent.insert(id.get(), open).is_none(),
            "{id:?} is in two exchanges"
        );
        assert!(self.model.used() <= usize::from(self.terms.send_window).max(1), "[MQTT-3.3.4-9]");
        if self.setup.honest {
            self.client.take_message(id, &publish, item);
        }
    }

    /// Repeats what an earlier connection has begun.
    fn resend(&mut self, choice: u8) {
        let has_room = self.model.used() < usize::from(self.terms.send_window);
        let expected = self.model.waiting.first().filter(|_| has_room).map(|(id, open)| (*id, open.number));
        let exchange = self.session.take_resend();
        assert_eq!(exchange.map(|exchange| (exchange.packet_id.get(), exchange.lsn.0)), expected);
        let Some(exchange) = exchange else { return };
        let id = exchange.packet_id;
        // A client that got it before would wait for its PUBREL as long as it lives.
        let is_gone = choice & 15 == 15 && !self.setup.honest;
        let item = self.store.owed.get(&exchange.lsn.0).filter(|_| !is_gone).cloned();
        let Some(mut item) = item else { return self.abandon(id, exchange.lsn.0) };
        item.qos = if exchange.state == AwaitingPuback { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        let fits = self.model.fits(&item, self.now);
        let outcome = self.session.redeliver(self.now, id, delivery(&item), &mut self.out);
        let bytes = self.sent();
        self.model.take(id);
        if fits {
            assert_eq!(outcome, Outcome::Taken);
            self.take_publish(bytes, &item, true);
        } else {
            assert_eq!((outcome, bytes.len()), (Outcome::Dropped(Dropped::TooLarge), 0));
            self.give_up(&item);
        }
    }

    /// The message of an exchange is not to be had any more: it went elsewhere. A crash may have forgotten
    /// that the exchange has ended by that.
    fn abandon(&mut self, id: PacketId, number: u64) {
        assert!(
            self.store.owed.remove(&number).is_some() || self.store.elsewhere.contains(&number),
            "{number} is lost"
        );
        self.store.elsewhere.insert(number);
        self.promised.remove(&number);
        self.session.abandon(id);
        self.model.take(id);
    }

    /// Writes what may be written, and gives it to the client.
    pub fn write(&mut self) {
        let watermark = self.store.watermark();
        let (expected, is_whole) = self.model.written(watermark);
        let result = self.session.write_replies(watermark, &mut self.out);
        assert_eq!(result.is_ok(), is_whole, "{result:?}");
        let bytes = self.sent();
        let mut decoder = Decoder::client(self.setup.version, self.terms.max_packet_size);
        let mut at = 0;
        for expected in &expected {
            let (packet, len) = decoder.decode(&bytes[at..]).unwrap().expect("a reply is missing");
            assert_eq!(packet, *expected);
            at += len;
            if self.setup.honest {
                self.client.take(&packet);
            }
        }
        assert_eq!(at, bytes.len(), "more than was owed");
        if !is_whole {
            self.over = true;
            return;
        }
        self.write_held(watermark);
    }

    /// QoS 2 messages whose identifiers have become durable.
    fn write_held(&mut self, watermark: Lsn) {
        let mut ready = Vec::new();
        while let Some(held) =
            self.model.held.pop_front_if(|held| held.report.is_some_and(|at| at <= watermark))
        {
            ready.push(held.item);
        }
        let expired = self.session.write_held(self.now, watermark, &mut self.out);
        let bytes = self.sent();
        let (sent, late): (Vec<_>, Vec<_>) = ready.into_iter().partition(|item| item.expires_at > self.now);
        assert_eq!(late.len(), expired.len());
        late.iter().for_each(|item| self.give_up(item));
        let mut at = 0;
        for item in &sent {
            let mut decoder = Decoder::client(self.setup.version, self.terms.max_packet_size);
            let len = decoder.frame_len(&bytes[at..]).unwrap().expect("a held message is missing");
            self.take_publish(bytes[at..at + len].to_vec(), item, false);
            let Ok(Some((Packet::Publish(publish), _))) = decoder.decode(&bytes[at..]) else {
                unreachable!()
            };
            let exchange = self.store.progress.exchanges[&publish.packet_id.unwrap().get()];
            assert_eq!(
                (exchange.lsn.0, exchange.state),
                (item.number, AwaitingPubrec),
                "durable before PUBLISH"
            );
            at += len;
        }
        assert_eq!(at, bytes.len(), "more than was held");
    }

    /// What was put into the buffer, as one write after the other takes it out.
    fn sent(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !self.out.is_empty() {
            let before = bytes.len();
            self.out.with_slices(|slices| slices.iter().for_each(|slice| bytes.extend_from_slice(slice)));
            // A socket takes what it likes.
            let taken = (bytes.len() - before).div_ceil(2);
            bytes.truncate(before + taken);
            self.out.advance(taken);
        }
        bytes
    }

    // ---- towards the store

    /// Tells what was settled, and submits the report if there is one.
    pub fn report(&mut self) {
        let settled: Vec<_> = self.session.take_settled().collect();
        let mut expected = std::mem::take(&mut self.model.settled);
        let mut numbers: Vec<_> = settled.iter().map(|claim| claim.lsn).collect();
        // What was dropped is told last: until then somebody may make a dead letter of it.
        expected.sort_unstable();
        numbers.sort_unstable();
        assert_eq!(numbers, expected, "each message is settled once");
        for claim in &settled {
            self.session.settle_by_report(claim, self.now);
        }
        let somebody_waits = self.model.waits_for_report();
        assert!(!somebody_waits || self.session.must_report(self.now), "somebody waits for a report");
        match self.session.take_report() {
            Some(delta) => {
                assert_eq!(delta.settled.len() + delta.settled_shared.len(), settled.len());
                let lsn = self.store.submit(Record::Report(delta));
                self.session.reported(lsn);
                self.model.reported(lsn);
            }
            None => assert!(!somebody_waits && settled.is_empty(), "no report for those who wait"),
        }
        assert!(!self.session.must_report(self.now), "nothing is left to report");
    }

    fn pass_time(&mut self, tenths: u8) {
        self.now = UnixMillis(self.now.0 + u64::from(tenths) * 100);
        let max = Duration::from_millis(u64::from(self.terms.keep_alive) * 1500);
        let is_over = self.terms.keep_alive > 0 && self.now >= self.heard_at.plus(max);
        let result = self.session.handle_time(self.now);
        assert_eq!(result.err().map(|close| close.reason), is_over.then_some(ReasonCode::KeepAliveTimeout));
        if let Some(deadline) = self.session.deadline() {
            assert!(self.terms.keep_alive == 0 || deadline <= self.heard_at.plus(max));
        }
        self.over |= is_over;
    }

    // ---- from the client

    fn client_acts(&mut self, input: &mut Input<'_>) {
        self.verdict = input.byte();
        if self.setup.honest {
            match input.below(4) {
                0 => self.honest_publish(qos(input)),
                1 => self.client_sends(&Packet::Pingreq),
                _ => self.honest_answer(),
            }
            return;
        }
        let (kind, id) =
            (input.below(12), input.pick(&[1, 2, 3, 4, u16::MAX - 2, u16::MAX - 1, u16::MAX, 9]));
        let Some(packet_id) = PacketId::new(id) else { return };
        let is_error = kind != 2 && self.verdict & 64 != 0 && self.setup.version == Version::V5;
        let reason = if is_error { ReasonCode::UnspecifiedError } else { ReasonCode::Success };
        let ack = Ack { packet_id, reason };
        match kind {
            0 => self.client_sends(&Packet::Puback(ack)),
            1 => self.client_sends(&Packet::Pubrec(ack)),
            2 => self.client_sends(&Packet::Pubcomp(ack)),
            3 => self.client_sends(&Packet::Pubrel(Ack { reason: ReasonCode::Success, ..ack })),
            4..7 => self.any_publish(id, input),
            7 => self.any_subscribe(packet_id, input),
            8 => self.any_unsubscribe(packet_id, input),
            9 => self.client_sends(&Packet::Pingreq),
            10 => {
                let session_expiry = input.pick(&[None, Some(0), Some(1), Some(u32::MAX)]);
                self.client_sends(&Packet::Disconnect(Disconnect {
                    session_expiry,
                    ..Disconnect::default()
                }));
            }
            _ => self.answer_what_is_open(),
        }
    }

    fn honest_publish(&mut self, qos: Qos) {
        if qos == Qos::AtMostOnce {
            return self.client_sends(&Packet::Publish(publish(qos, 0, "c", "0")));
        }
        if let Some(id) = self.client.begin(qos) {
            self.client_sends_open(id, false);
        }
    }

    fn client_sends_open(&mut self, id: u16, dup: bool) {
        let version = self.setup.version;
        if let Some(bytes) = self.client.send(id, dup, |packet| packets::encoded(version, &packet).unwrap()) {
            self.receive(&bytes);
        }
    }

    /// What an honest client sends first on a new connection.
    pub fn client_sends_again(&mut self) {
        while let Some(id) = self.client.next_again() {
            self.client_sends_open(id, true);
        }
    }

    fn honest_answer(&mut self) {
        match self.client.answer() {
            Some(answer) => self.client_sends(&answer.packet()),
            None => self.client_sends_again(),
        }
    }

    fn any_publish(&mut self, id: u16, input: &mut Input<'_>) {
        let topic = topics::name(input);
        let mut publish = publish(qos(input), id, &topic, "x");
        publish.retain = self.verdict & 8 != 0;
        publish.dup = publish.packet_id.is_some() && self.verdict & 32 != 0;
        if self.setup.version == Version::V5 {
            publish.properties.topic_alias = NonZeroU16::new(input.below(4).into());
            if self.verdict & 16 != 0 && publish.properties.topic_alias.is_some() {
                publish.topic = "";
            }
        }
        self.client_sends(&Packet::Publish(publish));
    }

    fn any_subscribe(&mut self, packet_id: PacketId, input: &mut Input<'_>) {
        let mut filters = Vec::new();
        for _ in 0..=input.below(3) {
            let filter = any_filter(input);
            let no_local = self.setup.version == Version::V5 && input.below(4) == 0;
            let options = SubscribeOptions { qos: qos(input), no_local, ..SubscribeOptions::default() };
            filters.push(SubscribeFilter { filter, options });
        }
        let subscription_id = Some(7).filter(|_| self.setup.version == Version::V5 && self.verdict & 8 != 0);
        self.client_sends(&Packet::Subscribe(Subscribe { packet_id, subscription_id, filters }));
    }

    fn any_unsubscribe(&mut self, packet_id: PacketId, input: &mut Input<'_>) {
        let filters = (0..=input.below(3)).map(|_| any_filter(input)).collect();
        self.client_sends(&Packet::Unsubscribe(Unsubscribe { packet_id, filters }));
    }

    /// Any bytes: what is left of them when no packet is whole is lost with the next ones.
    fn receive_raw(&mut self, input: &mut Input<'_>) {
        self.verdict = input.byte();
        let len = usize::from(input.byte());
        let bytes = input.bytes(len);
        self.receive(bytes);
    }

    fn client_sends(&mut self, packet: &Packet<'_>) {
        if let Ok(bytes) = packets::encoded(self.setup.version, packet) {
            self.receive(&bytes);
        }
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.session.heard(self.now);
        self.heard_at = self.now;
        let mut rest = bytes;
        while !self.over {
            match self.server_decoder.decode(rest) {
                Ok(Some((packet, len))) => {
                    self.handle(&packet);
                    rest = &rest[len..];
                }
                Ok(None) => return,
                Err(error) => {
                    assert!(!self.setup.honest, "{error}");
                    self.over = true;
                }
            }
        }
    }

    /// Hands a packet to the session, as a connection does.
    fn handle(&mut self, packet: &Packet<'_>) {
        let protocol_error = Err(ReasonCode::ProtocolError);
        let (result, expected) = match packet {
            Packet::Publish(publish) => return self.handle_publish(publish),
            Packet::Puback(ack) => {
                let expected = self.model.handle_puback(ack.packet_id);
                (self.session.handle_puback(*ack), if expected { Ok(()) } else { protocol_error })
            }
            Packet::Pubrec(ack) => {
                let expected = self.model.handle_pubrec(*ack);
                (self.session.handle_pubrec(*ack), if expected { Ok(()) } else { protocol_error })
            }
            Packet::Pubcomp(ack) => {
                let expected = self.model.handle_pubcomp(ack.packet_id);
                (self.session.handle_pubcomp(*ack), if expected { Ok(()) } else { protocol_error })
            }
            Packet::Pubrel(ack) => {
                self.model.handle_pubrel(ack.packet_id);
                self.session.handle_pubrel(*ack);
                (Ok(()), Ok(()))
            }
            Packet::Pingreq => {
                self.model.pings += 1;
                self.session.handle_pingreq();
                (Ok(()), Ok(()))
            }
            Packet::Subscribe(subscribe) => return self.handle_subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => return self.handle_unsubscribe(unsubscribe),
            Packet::Disconnect(disconnect) => {
                let asked = disconnect.session_expiry;
                let raises = asked.is_some_and(|seconds| seconds > 0) && self.terms.session_expiry == 0;
                assert_eq!(self.session.expiry_at_disconnect(asked).is_err(), raises);
                self.over = true;
                return;
            }
            // Those that no connection takes here.
            _ => (Ok(()), protocol_error),
        };
        let reason = result.map_err(|close| close.reason);
        assert!(
            reason == expected || reason.is_ok() && !matches!(packet, Packet::Puback(_) | Packet::Pubrec(_))
        );
        self.over |= expected.is_err();
    }

    fn handle_publish(&mut self, publish: &Publish<'_>) {
        let expected = self.model.handle_publish(publish);
        let verdict = match self.session.handle_publish(publish) {
            Ok(Incoming::Nothing) => Verdict::Nothing,
            Ok(Incoming::Route(topic)) => {
                assert!(TopicName::parse(&topic, TOPIC_LEVELS).is_ok());
                Verdict::Route(topic.to_string())
            }
            Err(close) => Verdict::Close(close.reason),
        };
        assert_eq!(verdict, expected, "{publish:?}");
        match verdict {
            Verdict::Route(_) => self.route(publish),
            Verdict::Nothing => {}
            Verdict::Close(reason) => {
                assert!(!self.setup.honest, "an honest client was closed with {reason:?}");
                self.over = true;
            }
        }
    }

    /// What the broker does with a message: refuses it, or makes it safe at once or with a record.
    fn route(&mut self, publish: &Publish<'_>) {
        let payload = String::from_utf8_lossy(publish.payload).into_owned();
        let keeps_id = publish.qos == Qos::ExactlyOnce && self.setup.durable;
        let receipt = match self.verdict & 15 {
            0 | 1 => {
                self.refused.push(payload);
                Receipt::Refused(
                    [ReasonCode::NotAuthorized, ReasonCode::QuotaExceeded][usize::from(self.verdict & 1)],
                )
            }
            2..6 if !keeps_id => {
                self.store.routed.push(payload);
                let none = self.verdict & 1 == 0 && self.setup.version == Version::V5;
                Receipt::Safe(if none { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success })
            }
            _ if publish.qos == Qos::AtMostOnce => Receipt::Safe(ReasonCode::Success),
            _ => {
                let id = publish.packet_id.map(PacketId::get).filter(|_| keeps_id);
                Receipt::SafeAt(self.store.submit(Record::Inbound(id, payload)), ReasonCode::Success)
            }
        };
        let goes_on = self.model.published(publish, receipt.clone());
        assert_eq!(self.session.published(publish, receipt).is_ok(), goes_on);
        self.over |= !goes_on;
    }

    fn handle_subscribe(&mut self, subscribe: &Subscribe) {
        let judged = self.session.handle_subscribe(subscribe);
        let expected = expected_subscriptions(self.setup.version, &self.terms.offer, subscribe);
        let reasons = judged.as_ref().map_err(|close: &Close| close.reason).map(|requests| {
            requests.iter().map(|request| request.as_ref().map(|_| ()).map_err(|reason| *reason)).collect()
        });
        assert_eq!(reasons, expected, "{subscribe:?}");
        let Ok(requests) = judged else {
            self.over = true;
            return;
        };
        let granted = [ReasonCode::Success, ReasonCode::GrantedQos1, ReasonCode::GrantedQos2];
        let reasons = requests.iter().map(|request| match request {
            Ok(request) => granted[request.options.qos as usize],
            Err(reason) => *reason,
        });
        let suback = Suback { packet_id: subscribe.packet_id, reasons: reasons.collect() };
        self.answer_later(ReplyPacket::Suback(suback));
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) {
        match self.session.handle_unsubscribe(unsubscribe) {
            Ok(filters) => {
                assert_eq!(filters.len(), unsubscribe.filters.len());
                let reasons =
                    filters.iter().map(|filter| *filter.as_ref().err().unwrap_or(&ReasonCode::Success));
                let unsuback = Suback { packet_id: unsubscribe.packet_id, reasons: reasons.collect() };
                self.answer_later(ReplyPacket::Unsuback(unsuback));
            }
            Err(close) => {
                assert_eq!(close.reason, ReasonCode::MalformedPacket);
                self.over = true;
            }
        }
    }

    fn answer_later(&mut self, reply: ReplyPacket) {
        let lsn = self.store.submit(Record::Subscriptions);
        self.model.replies.push_back((Wait::For(lsn), reply.clone()));
        self.session.answer_later(lsn, reply);
    }

    // ---- the end

    /// Everybody does what they owe, once.
    pub fn settle_down(&mut self) {
        self.verdict = 15;
        self.report();
        self.store.commit_all();
        self.write();
        self.deliver_owed();
        if self.setup.honest {
            for _ in 0..50 {
                self.honest_answer();
            }
        } else {
            self.answer_what_is_open();
        }
        self.check();
    }

    /// The acknowledgements that a client owes for what it has.
    fn answer_what_is_open(&mut self) {
        for (id, open) in self.model.sent.clone() {
            let Some(id) = PacketId::new(id) else { continue };
            let answer = match open.state {
                AwaitingPuback => Answer::Puback(id),
                AwaitingPubrec => Answer::Pubrec(id),
                AwaitingPubcomp => Answer::Pubcomp(id),
            };
            self.client_sends(&answer.packet());
        }
    }
}

fn any_filter(input: &mut Input<'_>) -> String {
    let share = input.pick(&["", "", "$share/g/", "$share/", "$share/+/"]);
    format!("{share}{}", topics::filter(input))
}

/// What becomes of each filter, or how the connection ends.
fn expected_subscriptions(
    version: Version,
    offer: &Offer,
    subscribe: &Subscribe,
) -> Result<Vec<Result<(), ReasonCode>>, ReasonCode> {
    let is_v5 = version == Version::V5;
    let refused = if is_v5 { ReasonCode::TopicFilterInvalid } else { ReasonCode::UnspecifiedError };
    if subscribe.subscription_id.is_some() && !offer.subscription_identifiers {
        return Err(ReasonCode::SubscriptionIdentifiersNotSupported);
    }
    let mut all = Vec::new();
    for entry in &subscribe.filters {
        let shared =
            entry.filter.strip_prefix("$share/").map(|rest| rest.split_once('/').unwrap_or((rest, "")));
        let (name, filter) = shared.unwrap_or(("none", &entry.filter));
        let is_shared_right = shared.is_none() || (topics::is_name(name) && !filter.is_empty());
        if !is_shared_right || entry.filter == "$share" {
            all.push(Err(refused));
            continue;
        }
        if !topics::is_filter(filter) || filter.split('/').count() > usize::from(TOPIC_LEVELS) {
            return Err(ReasonCode::MalformedPacket);
        }
        let missing = if shared.is_some() && !offer.shared_subscriptions {
            Some(ReasonCode::SharedSubscriptionsNotSupported)
        } else if filter.contains(['+', '#']) && !offer.wildcard_subscriptions {
            Some(ReasonCode::WildcardSubscriptionsNotSupported)
        } else {
            None
        };
        match missing {
            Some(reason) if is_v5 => return Err(reason),
            Some(_) => {
                all.push(Err(ReasonCode::UnspecifiedError));
                continue;
            }
            None => {}
        }
        if entry.options.no_local && shared.is_some() {
            // [MQTT-3.8.3-4]
            return Err(ReasonCode::ProtocolError);
        }
        all.push(Ok(()));
    }
    Ok(all)
}

fn delivery(item: &Item) -> Delivery {
    let parts = MessageParts {
        qos: Qos::ExactlyOnce,
        retain: false,
        published_at: item.published_at,
        expires_at: item.expires_at,
        topic: item.topic,
        properties: &[],
        payload: &item.payload(),
        publisher: "p",
    };
    Delivery {
        message: Message::new(&parts, &mut Vec::new()),
        qos: item.qos,
        retain: item.retain,
        subscription_ids: SubscriptionIds::from(&item.subscription_ids[..]),
        not_before: Lsn::ZERO,
        claim: item.owner.map(|owner| Claim { lsn: Lsn(item.number), owner, entry: None }),
    }
}
