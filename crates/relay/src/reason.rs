//! What the system says is wrong, in words for people: without the number that std adds, and in lowercase as all messages.

use std::io;

/// `connection refused`, where std says `Connection refused (os error 111)`.
pub(crate) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match (error.raw_os_error(), text.rfind(" (os error ")) {
        (Some(_), Some(end)) => &text[..end],
        _ => &text,
    };
    let mut letters = text.chars();
    // A word in capitals is a name.
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            format!("{}{}", first.to_lowercase(), letters.as_str())
        }
        _ => text.to_owned(),
    }
}

/// Whether a connection could not be made for want of something that is ours: descriptors, ports or memory. That says
/// nothing about the other end.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    let ours = [libc::EMFILE, libc::ENFILE, libc::EADDRNOTAVAIL, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|number| ours.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_without_numbers() {
        assert_eq!(reason(&io::Error::from_raw_os_error(111)), "connection refused");
        assert_eq!(reason(&io::ErrorKind::UnexpectedEof.into()), "unexpected end of file");
        assert_eq!(reason(&io::Error::other("DNS is gone")), "DNS is gone");
    }

    #[test]
    fn what_we_lack_is_ours() {
        assert!(is_ours(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(!is_ours(&io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        assert!(!is_ours(&io::ErrorKind::UnexpectedEof.into()));
    }
}
