//! Enums on the wire that an older or newer peer can read.
//!
//! A plain derived enum refuses a whole message for one variant it does not know. [`one_of`] gives an enum whose
//! encoding is a map with one entry, `{"variant": body}`, exactly what serde writes for newtype variants, and
//! whose decoding takes anything else as `Unrecognised`.

/// Declares an enum of newtype variants whose decoder answers `Unrecognised` to variants it does not know.
macro_rules! one_of {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $variant:ident($body:ty),)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant($body),)+
            /// A variant of another version of the protocol. It is never sent.
            Unrecognised,
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(Some(1))?;
                match self {
                    $(Self::$variant(body) => map.serialize_entry(stringify!($field), body)?,)+
                    Self::Unrecognised => map.serialize_entry("unrecognised", &())?,
                }
                map.end()
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                struct Shadow {
                    $(#[serde(default)] $field: Option<$body>,)+
                }
                let shadow = <Shadow as serde::Deserialize>::deserialize(deserializer)?;
                $(if let Some(body) = shadow.$field {
                    return Ok(Self::$variant(body));
                })+
                Ok(Self::Unrecognised)
            }
        }
    };
}

/// Declares an enum of words (`"kebab-case"` texts) with a catch-all for words of other versions.
macro_rules! word {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ } else $other:ident) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$doc])* $variant,)+
        }

        impl $name {
            /// The word on the wire and in messages.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Ok(match text.as_str() {
                    $($text => Self::$variant,)+
                    _ => Self::$other,
                })
            }
        }
    };
}

pub(super) use {one_of, word};
