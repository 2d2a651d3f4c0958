//! "Did you mean": the nearest of some words.

/// The nearest of `words`, if it is near enough to have been meant: one slip in three letters.
#[must_use]
pub fn nearest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (text.chars().count() / 3).max(1);
    words
        .into_iter()
        .map(|word| (strsim::osa_distance(text, word), word))
        .filter(|(distance, word)| *distance <= reach && *distance < word.chars().count())
        .min()
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_meant_and_far_ones_are_not() {
        assert_eq!(nearest("wbe", ["db", "web", "api"]), Some("web"));
        assert_eq!(nearest("monitoring", ["web", "api"]), None);
        assert_eq!(nearest("x", ["a"]), None);
        assert_eq!(nearest("web", ["job"]), None);
    }
}
