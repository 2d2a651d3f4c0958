//! Forms, refusals, and that every value survives being written and read.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

fn reads<T: FromStr<Err = InvalidQuantity> + Display>(text: &str) -> String {
    match text.parse::<T>() {
        Ok(value) => value.to_string(),
        Err(error) => format!("refused: {error}"),
    }
}

/// Text, JSON and MessagePack all give the value back.
fn survives<T>(value: T) -> Result<(), TestCaseError>
where
    T: FromStr<Err = InvalidQuantity> + Display + Debug + PartialEq + Copy + Serialize + DeserializeOwned,
{
    prop_assert_eq!(value.to_string().parse::<T>(), Ok(value));
    let json = serde_json::to_string(&value).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(serde_json::from_str::<T>(&json).map_err(|e| TestCaseError::fail(e.to_string()))?, value);
    let bytes = rmp_serde::to_vec_named(&value).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(
        rmp_serde::from_slice::<T>(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?,
        value
    );
    Ok(())
}

#[test]
fn durations() {
    for same in ["250ms", "10s", "1m30s", "2h", "7d", "3650d", "0s"] {
        assert_eq!(reads::<Dur>(same), same);
    }
    assert_eq!(reads::<Dur>("90s"), "1m30s");
    assert_eq!(reads::<Dur>("0"), "0s");
    assert_eq!(reads::<Dur>("10"), "refused: 10 is not a duration: add a unit, for example 10s");
    assert_eq!(reads::<Dur>("3651d"), "refused: must be between 0s and 3650d, found 3651d");
    for bad in ["", "s", "30s1m", "1m1m", "-1s", "1.5s", "1 s", "10sec", "99999999999999999999s"] {
        assert!(reads::<Dur>(bad).contains("is not a duration"), "{bad}: {}", reads::<Dur>(bad));
    }
}

#[test]
fn sizes() {
    for (text, canonical) in [
        ("1024", "1Ki"),
        ("128Mi", "128Mi"),
        ("1.5Gi", "1536Mi"),
        ("128M", "128M"),
        ("1500", "1500"),
        ("0", "0"),
    ] {
        assert_eq!(reads::<Size>(text), canonical);
    }
    assert_eq!(
        reads::<Size>("128m"),
        "refused: \"128m\" is not a size: m means thousandths; write 128Mi or 128M"
    );
    assert_eq!(reads::<Size>("128MB"), "refused: \"128MB\" is not a size: write 128M or 128Mi");
    assert_eq!(reads::<Size>("128mi"), "refused: \"128mi\" is not a size: write 128M or 128Mi");
    assert_eq!(reads::<Size>("64K"), "refused: \"64K\" is not a size: write 64k or 64Ki");
    assert_eq!(reads::<Size>("1.3Ki"), "refused: \"1.3Ki\" is not a size: it is not a whole number of bytes");
    for bad in ["", "Mi", "-1", "1.", ".5Gi", "1e3", "١Mi"] {
        assert!(reads::<Size>(bad).contains("is not a size"), "{bad}");
    }
    assert!(reads::<Size>("2000000Ti").contains("must be between"));
}

#[test]
fn cpu() {
    for (text, canonical) in [("2", "2"), ("0.25", "250m"), ("250m", "250m"), ("1000m", "1"), ("0", "0")] {
        assert_eq!(reads::<Cpu>(text), canonical);
    }
    assert_eq!(reads::<Cpu>("0.0001"), "refused: \"0.0001\" is not an amount of cpu: finer than 1m");
    assert_eq!(
        reads::<Cpu>("50%"),
        "refused: \"50%\" is not an amount of cpu: cpu is in cores; half a core is 500m"
    );
    for bad in ["", "m", "-1", "two", "1.m"] {
        assert!(reads::<Cpu>(bad).starts_with("refused"), "{bad}");
    }
    assert_eq!(serde_json::from_str::<Cpu>("2").ok(), Some(Cpu::from_millis(2_000)));
    assert_eq!(serde_json::from_str::<Cpu>("0.25").ok(), Some(Cpu::from_millis(250)));
}

#[test]
fn shares() {
    assert_eq!(reads::<CountOrPercent>("3"), "3");
    assert_eq!(reads::<CountOrPercent>("25%"), "25%");
    assert_eq!(reads::<CountOrPercent>("120%"), "refused: must be between 0% and 100%, found 120%");
    assert!(reads::<CountOrPercent>("-3").contains("must be between 0"));
    assert!(reads::<CountOrPercent>("few").contains("is not a count or percentage"));
    let quarter = CountOrPercent::Percent(25);
    assert_eq!((quarter.round_up(5), quarter.round_down(5), quarter.round_down(3)), (2, 1, 0));
}

#[test]
fn modes() {
    assert_eq!(reads::<Mode>("0644"), "0644");
    assert_eq!(reads::<Mode>("755"), "0755");
    for bad in ["", "64", "0o644", "0888", "00644", "+644"] {
        assert!(reads::<Mode>(bad).contains("octal"), "{bad}");
    }
    let number = serde_json::from_str::<Mode>("644").map_err(|e| e.to_string());
    assert!(
        number.is_err_and(|e| e.contains("a mode is text: write \"0644\" (YAML reads 0644 as a number)"))
    );
}

#[test]
fn signals() {
    assert_eq!(reads::<Signal>("SIGTERM"), "SIGTERM");
    assert_eq!(reads::<Signal>("SIGRTMIN+3"), "SIGRTMIN+3");
    for loose in ["15", "TERM", "sigterm"] {
        assert_eq!(reads::<Signal>(loose), format!("refused: {loose:?} is not a signal: write SIGTERM"));
    }
    for bad in ["", "0", "32", "SIGFOO", "SIGRTMIN+0", "SIGRTMIN+031", "SIGRTMIN+250"] {
        assert!(reads::<Signal>(bad).starts_with("refused"), "{bad}");
    }
    assert_eq!(Signal::TERM.number(), 15);
}

#[test]
fn rlimits() {
    for same in ["65536", "1024:65536", "infinity", "1024:infinity"] {
        assert_eq!(reads::<Rlimit>(same), same);
    }
    assert_eq!(
        reads::<Rlimit>("64k"),
        "refused: \"64k\" is not a limit: write a whole number, soft:hard, or infinity"
    );
    assert!(reads::<Rlimit>("2:1").contains("must not be above"));
    assert!(reads::<Rlimit>("1:2:3").contains("is not a limit"));
}

proptest! {
    #[test]
    fn every_value_survives(a in 0u64..=Dur::MAX.as_millis(), b in 0u64..=Size::MAX.as_bytes(),
        c in 0u64..=Cpu::MAX.as_millis(), d in any::<u32>(), e in 0u8..=100, f in 0u32..=0o7777,
        g in any::<u64>(), h in any::<u64>(), n in any::<u8>())
    {
        survives(Dur::from_millis(a))?;
        survives(Size::from_bytes(b))?;
        survives(Size::from_mib(b >> 21))?;
        survives(Cpu::from_millis(c))?;
        survives(CountOrPercent::Count(d))?;
        survives(CountOrPercent::Percent(e))?;
        survives(Mode::from_bits(f))?;
        if let Some(limit) = Rlimit::new(g.min(h), g.max(h)) {
            survives(limit)?;
        }
        if let Some(signal) = Signal::from_number(n) {
            survives(signal)?;
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}") {
        let _ = (text.parse::<Dur>().is_ok(), text.parse::<Size>().is_ok(), text.parse::<Cpu>().is_ok());
        let _ = (text.parse::<CountOrPercent>().is_ok(), text.parse::<Mode>().is_ok());
        let _ = (text.parse::<Signal>().is_ok(), text.parse::<Rlimit>().is_ok());
    }
}
