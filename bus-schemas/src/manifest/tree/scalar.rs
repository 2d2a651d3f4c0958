//! Scalars and their types by the core schema of YAML 1.2 (<https://yaml.org/spec/1.2.2/#103-core-schema>).

use serde_json::Value as Json;

/// A scalar: its text, and whether it was written plain (so that YAML gives it a type) or quoted (then it is text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    /// As written; of quoted and block scalars what they stand for.
    pub text: String,
    /// Whether it was written without quotes.
    pub is_plain: bool,
}

/// What YAML takes a scalar for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScalarType {
    /// Nothing, `~`, `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// `12`, `-3`, `0o17`, `0xff`.
    Int,
    /// `1.5`, `1e3`, `.inf`, `.nan`.
    Float,
    /// Everything else.
    Text,
}

impl Scalar {
    /// Nothing.
    #[must_use]
    pub fn null() -> Scalar {
        Scalar::plain(String::new())
    }

    /// Written without quotes.
    #[must_use]
    pub fn plain(text: String) -> Scalar {
        Scalar { text, is_plain: true }
    }

    /// Written with quotes, or as a block.
    #[must_use]
    pub fn quoted(text: String) -> Scalar {
        Scalar { text, is_plain: false }
    }

    /// What YAML takes it for.
    #[must_use]
    pub fn kind(&self) -> ScalarType {
        if !self.is_plain {
            return ScalarType::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => ScalarType::Null,
            "true" | "True" | "TRUE" => ScalarType::Bool(true),
            "false" | "False" | "FALSE" => ScalarType::Bool(false),
            text if is_int(text) => ScalarType::Int,
            text if is_float(text) => ScalarType::Float,
            _ => ScalarType::Text,
        }
    }

    pub(super) fn to_json(&self) -> Json {
        match self.kind() {
            ScalarType::Null => Json::Null,
            ScalarType::Bool(flag) => Json::Bool(flag),
            ScalarType::Int | ScalarType::Float => {
                self.number().unwrap_or_else(|| Json::String(self.text.clone()))
            }
            ScalarType::Text => Json::String(self.text.clone()),
        }
    }

    fn number(&self) -> Option<Json> {
        let text = self.text.as_str();
        if let Some(digits) = text.strip_prefix("0o") {
            return u64::from_str_radix(digits, 8).ok().map(Json::from);
        }
        if let Some(digits) = text.strip_prefix("0x") {
            return u64::from_str_radix(digits, 16).ok().map(Json::from);
        }
        if is_int(text) {
            let unsigned = text.parse::<u64>().ok().map(Json::from);
            return unsigned.or_else(|| text.parse::<i64>().ok().map(Json::from));
        }
        text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Json::Number)
    }
}

fn all(text: &str, digit: fn(&u8) -> bool) -> bool {
    !text.is_empty() && text.as_bytes().iter().all(digit)
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn is_int(text: &str) -> bool {
    let octal = text.strip_prefix("0o").is_some_and(|rest| all(rest, |b| matches!(b, b'0'..=b'7')));
    let hex = text.strip_prefix("0x").is_some_and(|rest| all(rest, u8::is_ascii_hexdigit));
    octal || hex || all(unsigned(text), u8::is_ascii_digit)
}

fn is_float(text: &str) -> bool {
    let rest = unsigned(text);
    if matches!(rest, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |t: &str| t.is_empty() || all(t, u8::is_ascii_digit);
    let some_digit = !whole.is_empty() || !fraction.is_empty();
    let exponent = exponent.is_none_or(|e| all(unsigned(e), u8::is_ascii_digit));
    some_digit && digits(whole) && digits(fraction) && exponent
}
