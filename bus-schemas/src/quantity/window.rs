//! When a wave may start: `Mon..Fri 09:00-16:00 Europe/Amsterdam`.
//!
//! Days and zone may be left out: every day, and UTC. A window whose end is not after its begin goes over midnight and
//! belongs to the day on which it begins. The rules of zones come with the program and are never read from the host,
//! so every controller decides alike. A begin that the clock skips in spring is right after the gap; one that comes
//! twice in autumn is the first.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Span, Zoned};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::InvalidQuantity;
use crate::time::Timestamp;

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];
const DAY_MINUTES: u16 = 24 * 60;
/// A window opens at least once within this many days, whatever the day of the week it is for.
const WEEK: i64 = 7;

/// A span of time that comes again on some days of each week.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Which days, from Monday.
    days: [bool; 7],
    /// Minutes after midnight.
    from: u16,
    /// Minutes after midnight; up to 24:00.
    to: u16,
    /// IANA name.
    zone: String,
}

impl Window {
    /// Whether a moment lies in it.
    #[must_use]
    pub fn is_open(&self, at: Timestamp) -> bool {
        let Some(now) = self.local(at) else { return false };
        [-1, 0]
            .into_iter()
            .any(|day| self.span(&now, day).is_some_and(|(opens, closes)| opens <= now && now < closes))
    }

    /// When it opens next after a moment; the moment itself if it is open then.
    #[must_use]
    pub fn opens_at(&self, at: Timestamp) -> Option<Timestamp> {
        if self.is_open(at) {
            return Some(at);
        }
        let now = self.local(at)?;
        let next = (0..=WEEK).filter_map(|day| self.span(&now, day)).map(|(opens, _)| opens);
        let millis = next.filter(|opens| *opens > now).min()?.timestamp().as_millisecond();
        u64::try_from(millis).ok().map(Timestamp)
    }

    fn local(&self, at: Timestamp) -> Option<Zoned> {
        let millis = i64::try_from(at.0).ok()?;
        Some(jiff::Timestamp::from_millisecond(millis).ok()?.to_zoned(zone(&self.zone)?))
    }

    /// The window that begins so many days after the day of `now`, if that is one of its days.
    fn span(&self, now: &Zoned, day: i64) -> Option<(Zoned, Zoned)> {
        let date = now.date().checked_add(Span::new().days(day)).ok()?;
        let index = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
        if !*self.days.get(index)? {
            return None;
        }
        let over = i64::from(self.to <= self.from);
        let end = date.checked_add(Span::new().days(over)).ok()?;
        Some((moment(date, self.from, now.time_zone())?, moment(end, self.to, now.time_zone())?))
    }
}

fn moment(date: Date, minutes: u16, zone: &TimeZone) -> Option<Zoned> {
    let date = date.checked_add(Span::new().days(i64::from(minutes / DAY_MINUTES))).ok()?;
    let minutes = minutes % DAY_MINUTES;
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    date.at(hour, minute, 0, 0).to_zoned(zone.clone()).ok()
}

/// The zone of this IANA name.
fn zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    TimeZoneDatabase::bundled().get(name).ok()
}

/// The zone whose name, or whose last part, is most like `text`.
fn near(text: &str) -> Option<String> {
    let database = TimeZoneDatabase::bundled();
    let names: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
    let part = |name: &String| name.rsplit('/').next().is_some_and(|last| last.eq_ignore_ascii_case(text));
    if let Some(name) = names.iter().find(|name| name.eq_ignore_ascii_case(text) || part(name)) {
        return Some(name.clone());
    }
    let distance = |name: &String| strsim::jaro_winkler(name, text);
    names.into_iter().filter(|name| distance(name) > 0.9).max_by(|a, b| distance(a).total_cmp(&distance(b)))
}

fn zone_name(text: &str) -> Result<String, InvalidQuantity> {
    let known = zone(text).and_then(|zone| zone.iana_name().map(str::to_owned));
    match known {
        // The name in its own case, whatever case it was written in.
        Some(name) if name.eq_ignore_ascii_case(text) => Ok(name),
        Some(_) => Ok(text.to_owned()),
        None => {
            let hint = near(text).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            Err(InvalidQuantity::form(format!("{text:?} is not a time zone{hint}")))
        }
    }
}

fn form(text: &str) -> InvalidQuantity {
    InvalidQuantity::form(format!(
        "{text:?} is not a window: write days, times and a zone, for example Mon..Fri 09:00-16:00 Europe/Amsterdam"
    ))
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|(name, _)| *name == text)
}

/// `Mon..Fri,Sun`. A range may go over the end of the week.
fn days(text: &str) -> Option<[bool; 7]> {
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        for step in 0..=(last + 7 - first) % 7 {
            *days.get_mut((first + step) % 7)? = true;
        }
    }
    Some(days)
}

/// `09:00`, minutes after midnight; to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two =
        |t: &str| (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit())).then(|| t.parse::<u16>().ok())?;
    let (hour, minute) = (two(hour)?, two(minute)?);
    (minute < 60 && hour * 60 + minute <= DAY_MINUTES).then_some(hour * 60 + minute)
}

impl FromStr for Window {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Window, InvalidQuantity> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (which, times, zone) = match words.as_slice() {
            [times] => (None, *times, None),
            [times, zone] if times.contains(':') => (None, *times, Some(*zone)),
            [which, times] => (Some(*which), *times, None),
            [which, times, zone] => (Some(*which), *times, Some(*zone)),
            _ => return Err(form(text)),
        };
        let days = which.map_or(Some([true; 7]), days).ok_or_else(|| form(text))?;
        let (from, to) = times.split_once('-').ok_or_else(|| form(text))?;
        let (from, to) = minutes(from).zip(minutes(to)).ok_or_else(|| form(text))?;
        if from == DAY_MINUTES {
            return Err(InvalidQuantity::range("a window begins before 24:00: write 00:00"));
        }
        if from == to {
            return Err(InvalidQuantity::range("a window of no time never opens; all day is 00:00-24:00"));
        }
        Ok(Window { days, from, to, zone: zone_name(zone.unwrap_or("UTC"))? })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != [true; 7] {
            let mut parts = Vec::new();
            let mut i = 0;
            while let Some(first) = (i..7).find(|d| self.days[*d]) {
                let last = (first..7).take_while(|d| self.days[*d]).last().unwrap_or(first);
                parts.push(match last - first {
                    0 => DAYS[first].0.to_owned(),
                    1 => format!("{},{}", DAYS[first].0, DAYS[last].0),
                    _ => format!("{}..{}", DAYS[first].0, DAYS[last].0),
                });
                i = last + 1;
            }
            write!(f, "{} ", parts.join(","))?;
        }
        let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{} {}", time(self.from), time(self.to), self.zone)
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        text.parse().expect("a window")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a moment")
    }

    #[test]
    fn windows_are_written_as_read() {
        for text in [
            "Mon..Fri 09:00-16:00 Europe/Amsterdam",
            "Mon,Tue,Thu 22:00-04:00 America/New_York",
            "Sun 00:00-24:00 UTC",
            "01:30-02:30 Asia/Tokyo",
        ] {
            assert_eq!(window(text).to_string(), text);
        }
        assert_eq!(window("09:00-10:00").to_string(), "09:00-10:00 UTC");
        assert_eq!(window("Fri..Mon 09:00-10:00").to_string(), "Mon,Fri..Sun 09:00-10:00 UTC");
    }

    #[test]
    fn what_is_no_window_is_told() {
        let said = |text: &str| text.parse::<Window>().expect_err("refused").to_string();
        assert_eq!(
            said("09:00-16:00 Amsterdam"),
            "\"Amsterdam\" is not a time zone; did you mean Europe/Amsterdam?"
        );
        assert!(said("Mo 09:00-16:00").contains("is not a window"));
        assert!(said("9:00-16:00").contains("is not a window"));
        assert!(said("09:00-25:00").contains("is not a window"));
        assert!(said("09:00-09:00").contains("never opens"));
    }

    #[test]
    fn the_zone_decides_with_its_summer_time() {
        let window = window("Mon..Fri 09:00-16:00 Europe/Amsterdam");
        // Friday in winter, one hour ahead of UTC; and in summer, two.
        assert!(!window.is_open(at("2026-11-20T07:59:59.000Z")));
        assert!(window.is_open(at("2026-11-20T08:00:00.000Z")));
        assert!(!window.is_open(at("2026-11-20T15:00:00.000Z")));
        assert!(window.is_open(at("2026-07-03T07:00:00.000Z")));
        assert_eq!(window.opens_at(at("2026-11-20T15:00:00.000Z")), Some(at("2026-11-23T08:00:00.000Z")));
        assert_eq!(window.opens_at(at("2026-11-20T09:00:00.000Z")), Some(at("2026-11-20T09:00:00.000Z")));
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_it_begins_on() {
        let window = window("Fri 22:00-04:00 UTC");
        assert!(window.is_open(at("2026-11-20T23:00:00.000Z")));
        assert!(window.is_open(at("2026-11-21T03:59:00.000Z")));
        assert!(!window.is_open(at("2026-11-20T03:00:00.000Z")));
        assert!(!window.is_open(at("2026-11-21T04:00:00.000Z")));
    }

    #[test]
    fn a_begin_that_the_clock_skips_is_right_after_the_gap() {
        let window = window("Sun 02:30-05:00 Europe/Amsterdam");
        let opens = window.opens_at(at("2026-03-29T00:00:00.000Z"));
        assert_eq!(opens, Some(at("2026-03-29T01:30:00.000Z")));
    }
}
