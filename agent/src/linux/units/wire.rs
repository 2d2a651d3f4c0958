//! Messages of D-Bus, as far as a service manager is asked with them: texts and numbers in bodies, nothing else.
//!
//! What comes from outside is bounded and never trusted: what is no message is `None`.

/// Bytes of a message's fixed part, with the length of its fields.
pub(super) const HEAD: usize = 16;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Return,
    Error,
    Signal,
    Other,
}

/// A value of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Number(u32),
    Text(String),
}

/// A call with texts as arguments.
pub(super) struct Call<'a> {
    pub(super) serial: u32,
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) texts: &'a [&'a str],
}

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) reply_to: Option<u32>,
    pub(super) member: String,
    pub(super) error: String,
    /// The values up to the first that is neither a text nor a number.
    pub(super) body: Vec<Value>,
}

impl Call<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Writer::default();
        for text in self.texts {
            body.text(text);
        }
        let mut out = Writer::default();
        let types = "s".repeat(self.texts.len());
        let fields = [
            (PATH, 'o', self.path),
            (DESTINATION, 's', self.destination),
            (INTERFACE, 's', self.interface),
            (MEMBER, 's', self.member),
            (SIGNATURE, 'g', types.as_str()),
        ];
        out.head(1, self.serial, body.0.len());
        out.fields(&fields, None);
        out.0.extend(body.0);
        out.0
    }
}

/// Little-endian, each value at a multiple of its size.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        // Nothing that is sent is anywhere near so long.
        self.number(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend(text.bytes());
        self.0.push(0);
    }

    fn types(&mut self, types: &str) {
        self.0.push(u8::try_from(types.len()).unwrap_or(u8::MAX));
        self.0.extend(types.bytes());
        self.0.push(0);
    }

    fn head(&mut self, kind: u8, serial: u32, body: usize) {
        self.0.extend([b'l', kind, 0, 1]);
        self.length(body);
        self.number(serial);
    }

    fn fields(&mut self, fields: &[(u8, char, &str)], reply_to: Option<u32>) {
        let at = self.0.len();
        self.number(0);
        let begin = self.0.len();
        for (code, kind, value) in fields {
            if value.is_empty() {
                continue;
            }
            self.align(8);
            self.0.push(*code);
            self.types(&kind.to_string());
            match kind {
                'g' => self.types(value),
                _ => self.text(value),
            }
        }
        if let Some(serial) = reply_to {
            self.align(8);
            self.0.push(REPLY_SERIAL);
            self.types("u");
            self.number(serial);
        }
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_le_bytes());
        self.align(8);
    }
}

/// How many bytes follow the fixed part of a message.
pub(super) fn rest_of(head: &[u8; HEAD]) -> Option<usize> {
    let mut reader = Reader { bytes: head, at: 4, big: is_big(head[0])? };
    let body = usize::try_from(reader.number()?).ok()?;
    reader.number()?;
    let fields = usize::try_from(reader.number()?).ok()?;
    (HEAD.checked_add(fields)?.checked_next_multiple_of(8)? - HEAD).checked_add(body)
}

fn is_big(order: u8) -> Option<bool> {
    match order {
        b'l' => Some(false),
        b'B' => Some(true),
        _ => None,
    }
}

impl Message {
    pub(super) fn decode(bytes: &[u8]) -> Option<Message> {
        let mut reader = Reader { bytes, at: 12, big: is_big(*bytes.first()?)? };
        let kind = match bytes.get(1)? {
            2 => Kind::Return,
            3 => Kind::Error,
            4 => Kind::Signal,
            _ => Kind::Other,
        };
        let mut message =
            Message { kind, reply_to: None, member: String::new(), error: String::new(), body: Vec::new() };
        let end = usize::try_from(reader.number()?).ok()?.checked_add(HEAD)?;
        let mut types = String::new();
        while reader.at < end {
            reader.align(8)?;
            let code = reader.byte()?;
            match (code, reader.types()?.as_str()) {
                (MEMBER, "s") => message.member = reader.text()?,
                (ERROR_NAME, "s") => message.error = reader.text()?,
                (REPLY_SERIAL, "u") => message.reply_to = Some(reader.number()?),
                (SIGNATURE, "g") => types = reader.types()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "g") => drop(reader.types()?),
                (_, "u") => drop(reader.number()?),
                _ => return None,
            }
        }
        reader.align(8)?;
        for kind in types.chars() {
            let value = match kind {
                's' | 'o' => Value::Text(reader.text()?),
                'u' => Value::Number(reader.number()?),
                _ => break,
            };
            message.body.push(value);
        }
        Some(message)
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big: bool,
}

impl Reader<'_> {
    fn take(&mut self, count: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn number(&mut self) -> Option<u32> {
        self.align(4)?;
        let big = self.big;
        let bytes: [u8; 4] = self.take(4)?.try_into().ok()?;
        Some(if big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn words(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        self.byte().filter(|end| *end == 0)?;
        Some(text)
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        self.words(length)
    }

    fn types(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.words(length)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, fields: &[(u8, char, &str)], to: Option<u32>, body: (&str, Writer)) -> Vec<u8> {
        let mut out = Writer::default();
        out.head(kind, 99, body.1.0.len());
        let fields: Vec<(u8, char, &str)> =
            fields.iter().copied().chain([(SIGNATURE, 'g', body.0)]).collect();
        out.fields(&fields, to);
        out.0.extend(body.1.0);
        out.0
    }

    fn texts(number: Option<u32>, texts: &[&str]) -> (String, Writer) {
        let mut body = Writer::default();
        if let Some(number) = number {
            body.number(number);
        }
        texts.iter().for_each(|text| body.text(text));
        (format!("{}{}", if number.is_some() { "u" } else { "" }, "s".repeat(texts.len())), body)
    }

    /// The answer to a call.
    pub(in crate::linux::units) fn reply(to: u32, words: &[&str]) -> Vec<u8> {
        let (types, body) = texts(None, words);
        message(2, &[(7, 's', ":1.0")], Some(to), (&types, body))
    }

    /// A refusal of one.
    pub(in crate::linux::units) fn error(to: u32, name: &str, text: &str) -> Vec<u8> {
        let (types, body) = texts(None, &[text]);
        message(3, &[(ERROR_NAME, 's', name)], Some(to), (&types, body))
    }

    /// A signal.
    pub(in crate::linux::units) fn signal(member: &str, number: u32, words: &[&str]) -> Vec<u8> {
        let (types, body) = texts(Some(number), words);
        message(4, &[(PATH, 'o', "/x"), (MEMBER, 's', member)], None, (&types, body))
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = signal("JobRemoved", 7, &["/job/7", "x.service", "done"]);
        let head: &[u8; HEAD] = bytes[..HEAD].try_into().expect("has a head");
        assert_eq!(rest_of(head), Some(bytes.len() - HEAD));
        let read = Message::decode(&bytes).expect("is a message");
        assert_eq!((read.kind, read.member.as_str()), (Kind::Signal, "JobRemoved"));
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(read.body, [Value::Number(7), text("/job/7"), text("x.service"), text("done")]);
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let call = Call {
            serial: 1,
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            texts: &[],
        };
        let bytes = call.encode();
        // The Hello that every client sends, as captured on a bus.
        let expected = b"l\x01\0\x01\0\0\0\0\x01\0\0\0n\0\0\0\
            \x01\x01o\0\x15\0\0\0/org/freedesktop/DBus\0\0\0\
            \x06\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
            \x02\x01s\0\x14\0\0\0org.freedesktop.DBus\0\0\0\0\
            \x03\x01s\0\x05\0\0\0Hello\0\0\0";
        assert_eq!(bytes, expected);
    }

    proptest! {
        #[test]
        fn garbage_is_no_message(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn a_spoiled_message_breaks_nothing(at in 0usize..150, byte in any::<u8>()) {
            let mut bytes = signal("JobRemoved", 7, &["/job/7", "x.service", "done"]);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Message::decode(&bytes);
            let head: &[u8; HEAD] = bytes[..HEAD].try_into().expect("has a head");
            let _ = rest_of(head);
        }
    }
}
