//! Did you mean: the known word that a mistyped one is closest to.

/// One wrong letter in this many is taken for a slip; more is another word.
const LETTERS_PER_SLIP: usize = 3;
/// Two words that begin alike are close even when an ending is missing: `algo` for `algorithm`.
const PREFIX_LETTERS_MIN: usize = 3;

/// The closest of the known words, when it is close enough to be meant.
pub(crate) fn closest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let plain = typed.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .filter_map(|word| Some((distance(&plain, word)?, word)))
        .min_by_key(|(distance, word)| (*distance, usize::MAX - letters_in_common(&plain, word)))
        .map(|(_, word)| word)
}

/// The hint that goes with it.
pub(crate) fn did_you_mean<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    closest(typed, known).map(|word| format!("did you mean `{word}`?"))
}

/// How many letters two words begin with alike; decides between words that are equally far.
fn letters_in_common(typed: &str, word: &str) -> usize {
    typed.chars().zip(word.chars()).take_while(|(one, other)| one == other).count()
}

/// None: too far apart.
fn distance(typed: &str, word: &str) -> Option<usize> {
    let lower = word.to_lowercase();
    let slips = strsim::damerau_levenshtein(typed, &lower);
    let letters = typed.chars().count().max(lower.chars().count());
    if slips <= letters.div_ceil(LETTERS_PER_SLIP).min(letters.saturating_sub(1)) {
        return Some(slips);
    }
    let begins_alike = typed.chars().count() >= PREFIX_LETTERS_MIN
        && (lower.starts_with(typed) || typed.starts_with(&lower) && lower.len() >= PREFIX_LETTERS_MIN);
    begins_alike.then_some(slips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_forgiven_and_other_words_are_not() {
        let known = ["on", "algorithm", "mode", "port", "first-byte"];
        assert_eq!(closest("algoritm", known), Some("algorithm"));
        assert_eq!(closest("algo", known), Some("algorithm"));
        assert_eq!(closest("first_byte", known), Some("first-byte"));
        assert_eq!(closest("PORT", known), Some("port"));
        assert_eq!(closest("ports", known), Some("port"));
        assert_eq!(closest("zon", ["on", "zone"]), Some("zone"));
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("x", known), None);
    }
}
