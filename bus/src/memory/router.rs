//! Who gets a message: subscriptions, queue groups, imports, rewritten replies.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ostler_schemas::headers as names;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::pattern::{Pattern, prefixes_of};
use super::permissions::Response;
use super::state::State;
use crate::layout::Account;
use crate::store::Headers;
use crate::topic::Message;

/// A message at the servers.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    pub(super) account: Account,
    /// Who sent it, as the server knows.
    pub(super) user: String,
    pub(super) subject: String,
    pub(super) reply: Option<String>,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) status: Option<u16>,
}

impl Packet {
    /// What a server itself says.
    pub(super) fn of_server(account: Account, subject: String, headers: Headers, body: Bytes) -> Self {
        Self { account, user: String::new(), subject, reply: None, headers, body, status: None }
    }

    fn message(&self) -> Message {
        Message {
            subject: self.subject.clone(),
            reply: self.reply.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            status: self.status,
        }
    }
}

/// What has arrived at a subscription, or is on its way there.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<VecDeque<(Instant, Message)>>,
    pub(super) ready: Notify,
    capacity: usize,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::new(VecDeque::new()), ready: Notify::new(), capacity })
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(Instant, Message)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message; false if there is no room.
    fn push(&self, at: Instant, message: Message) -> bool {
        let mut queue = self.queue();
        if queue.len() >= self.capacity {
            return false;
        }
        let at = queue.back().map_or(at, |(before, _)| at.max(*before));
        queue.push_back((at, message));
        drop(queue);
        self.ready.notify_one();
        true
    }

    /// The next message if it has arrived, else when it will.
    pub(super) fn take(&self) -> Result<Message, Option<Instant>> {
        let mut queue = self.queue();
        match queue.front() {
            Some((at, _)) if *at <= Instant::now() => queue.pop_front().map(|(_, m)| m).ok_or(None),
            Some((at, _)) => Err(Some(*at)),
            None => Err(None),
        }
    }

    pub(super) fn clear(&self) -> usize {
        std::mem::take(&mut *self.queue()).len()
    }
}

/// A subscription.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) account: Account,
    pub(super) text: String,
    pub(super) pattern: Pattern,
    pub(super) queue: Option<String>,
    pub(super) conn: u64,
    pub(super) inbox: Arc<Inbox>,
    /// The service and the number of its endpoint, whose requests are counted.
    pub(super) endpoint: Option<(u64, usize)>,
}

/// Where a reply goes that CP sends to a rewritten subject.
#[derive(Debug, Clone)]
pub(super) struct ReplyRoute {
    account: Account,
    subject: String,
    response: Response,
    threshold: Duration,
    /// Afterwards the way back is closed.
    until: Instant,
}

/// What begins the subjects that stand in CP for a requester's own reply subject.
const REWRITTEN: &str = "_R_.";

/// With more rewritten replies than this those that nobody waits for any more are forgotten.
const REPLIES_KEPT: usize = 8192;

impl State {
    pub(super) fn subscribe(&mut self, subscription: Subscription) -> u64 {
        let id = self.fresh_id();
        let account = subscription.account;
        let slot = if subscription.pattern.is_literal() {
            self.exact.entry((account, subscription.text.clone()))
        } else {
            self.wild.entry((account, subscription.pattern.literal_prefix()))
        };
        slot.or_default().insert(id);
        self.subscriptions.insert(id, subscription);
        id
    }

    pub(super) fn unsubscribe(&mut self, id: u64) {
        let Some(subscription) = self.subscriptions.remove(&id) else { return };
        let literal = subscription.pattern.is_literal();
        let prefix = subscription.pattern.literal_prefix();
        let (index, key) = if literal {
            (&mut self.exact, (subscription.account, subscription.text))
        } else {
            (&mut self.wild, (subscription.account, prefix))
        };
        if let Some(ids) = index.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                index.remove(&key);
            }
        }
    }

    fn interested(&self, account: Account, subject: &str) -> Vec<u64> {
        let mut out: Vec<u64> =
            self.exact.get(&(account, subject.to_owned())).into_iter().flatten().copied().collect();
        for prefix in prefixes_of(subject) {
            let ids = self.wild.get(&(account, prefix)).into_iter().flatten();
            out.extend(ids.filter(|id| self.subscriptions[id].pattern.matches(subject)));
        }
        out.sort_unstable();
        out
    }

    /// Delivers a message. Returns how many take it: 0 means that nobody serves the subject.
    pub(super) fn route(&mut self, packet: &Packet) -> usize {
        let mut takers = self.deliver_in(packet.account, packet);
        if packet.account == Account::Cp {
            takers += self.route_in_cp(packet);
        } else {
            takers += self.route_import(packet);
        }
        takers
    }

    fn route_in_cp(&mut self, packet: &Packet) -> usize {
        if packet.subject.starts_with(REWRITTEN) {
            return self.route_reply(packet);
        }
        let mut takers = self.serve_jetstream(packet) + self.serve_discovery(packet);
        let importers: Vec<Account> =
            self.exports.iter().filter(|(_, p)| p.matches(&packet.subject)).map(|(a, _)| *a).collect();
        for account in importers {
            takers += self.deliver_in(account, packet);
        }
        takers
    }

    fn route_reply(&mut self, packet: &Packet) -> usize {
        let now = Instant::now();
        let Some(route) = self.replies.get_mut(&packet.subject) else { return 0 };
        if route.until < now {
            self.replies.remove(&packet.subject);
            return 0;
        }
        route.until = now + route.threshold;
        let (route, rewritten) = (route.clone(), packet.subject.clone());
        let packet = Packet { subject: route.subject, account: route.account, ..packet.clone() };
        // Not through imports: a reply stays in its account, so replies cannot be chained back into CP.
        let takers = self.deliver_in(route.account, &packet);
        if route.response == Response::Single || takers == 0 {
            // The rewritten subject is gone with the answer, or with who waited for it.
            self.replies.remove(&rewritten);
        }
        takers
    }

    fn route_import(&mut self, packet: &Packet) -> usize {
        let found = self.imports.get(&packet.account).into_iter().flatten().find_map(|import| {
            let subject = import.translate(&packet.subject)?;
            Some((subject, import.share, (import.response, import.threshold)))
        });
        let Some((subject, share, response)) = found else { return 0 };
        let reply = packet.reply.as_ref().map(|reply| self.rewrite(packet.account, reply, response));
        let mut headers = packet.headers.clone();
        if share {
            let info = serde_json::json!({ "acc": packet.account.as_str(), "user": packet.user });
            headers.set(names::NATS_REQUEST_INFO, info.to_string());
        }
        let inner = Packet { account: Account::Cp, subject, reply: reply.clone(), headers, ..packet.clone() };
        let takers = self.route(&inner);
        if takers == 0
            && let Some(reply) = reply
        {
            self.replies.remove(&reply);
        }
        takers
    }

    fn rewrite(
        &mut self,
        account: Account,
        reply: &str,
        (response, threshold): (Response, Duration),
    ) -> String {
        if self.replies.len() > REPLIES_KEPT {
            let (exact, now) = (&self.exact, Instant::now());
            let waited_for = |r: &ReplyRoute| exact.contains_key(&(r.account, r.subject.clone()));
            self.replies.retain(|_, r| r.until >= now && waited_for(r));
        }
        let subject = format!("{REWRITTEN}{}", self.fresh_id());
        let until = Instant::now() + threshold;
        let route = ReplyRoute { account, subject: reply.to_owned(), response, threshold, until };
        self.replies.insert(subject.clone(), route);
        subject
    }

    /// Delivers within one account.
    fn deliver_in(&mut self, account: Account, packet: &Packet) -> usize {
        let mut groups: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut takers = 0;
        for id in self.interested(account, &packet.subject) {
            match self.subscriptions[&id].queue.clone() {
                Some(queue) => groups.entry(queue).or_default().push(id),
                None => {
                    takers += 1;
                    self.deliver(id, packet);
                }
            }
        }
        for members in groups.into_values() {
            takers += 1;
            // A member whose connection the server has seen end gets nothing; a silent one still does.
            let open: Vec<u64> =
                members.into_iter().filter(|id| self.is_open(self.subscriptions[id].conn)).collect();
            if !open.is_empty() {
                let chosen = open[self.faults.pick(open.len())];
                self.deliver(chosen, packet);
            }
        }
        takers
    }

    fn is_open(&self, conn: u64) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.link.borrow().connected)
    }

    fn deliver(&mut self, id: u64, packet: &Packet) {
        let Some(subscription) = self.subscriptions.get(&id) else { return };
        if !self.reaches(subscription.conn) {
            return;
        }
        let Some(conn) = self.conns.get(&subscription.conn) else { return };
        let fate = self.faults.delivery(&conn.party, &packet.subject);
        let at = Instant::now() + Duration::from_millis(fate.delay_ms);
        for _ in 0..fate.copies {
            if !subscription.inbox.push(at, packet.message()) {
                conn.link.send_modify(|link| link.dropped += 1);
            }
        }
        if let Some((service, endpoint)) = subscription.endpoint
            && let Some(service) = self.services.get_mut(&service)
        {
            service.count(endpoint);
        }
    }
}
