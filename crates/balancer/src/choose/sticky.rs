//! A cookie that brings a client back to the server that it met first.
//!
//! The mark in it is a hash of the server's name: it tells nobody an address at a glance, and all balancers of the
//! site agree on it without asking each other. It is no credential, so it need not be a secret.

use relay::RequestHead;

use super::key::{cookies, hash};

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Sticky {
    cookie: String,
    /// By server: the value of the cookie, and the whole of `Set-Cookie`.
    marks: Vec<(String, String)>,
}

impl Sticky {
    pub fn new<'a>(cookie: &str, names: impl Iterator<Item = &'a str>) -> Self {
        let mark = |name: &str| format!("{:016x}", hash(format!("{cookie}\0{name}").as_bytes()));
        let whole = |mark: String| {
            let set = format!("{cookie}={mark}; Path=/; HttpOnly; SameSite=Lax");
            (mark, set)
        };
        Self { cookie: cookie.to_owned(), marks: names.map(mark).map(whole).collect() }
    }

    /// The server that the client was at, if it says one that there is.
    pub fn wanted(&self, request: &RequestHead) -> Option<usize> {
        let known = |value: &[u8]| self.marks.iter().position(|(mark, _)| mark.as_bytes() == value);
        cookies(request, &self.cookie).find_map(known)
    }

    /// `Set-Cookie` for the answer of this server; None when the client knows already, and when its own server is up
    /// and only had no room: it goes back there.
    pub fn tells(&self, request: &RequestHead, index: usize, is_up: impl Fn(usize) -> bool) -> Option<&str> {
        let keeps = self.wanted(request).is_some_and(|wanted| wanted == index || is_up(wanted));
        (!keeps).then(|| self.marks[index].1.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(cookie: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.load(format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n").as_bytes()).unwrap();
        head
    }

    #[test]
    fn a_client_comes_back_to_whom_it_was_told() {
        let sticky = Sticky::new("dolmen", ["10.0.0.1:80", "10.0.0.2:80"].into_iter());
        let fresh = request("a=b");
        assert_eq!(sticky.wanted(&fresh), None);
        for index in [0, 1] {
            let told = sticky.tells(&fresh, index, |_| true).unwrap();
            assert!(told.ends_with("; Path=/; HttpOnly; SameSite=Lax") && !told.contains("10.0.0"));
            let back = request(told.split(';').next().unwrap());
            assert_eq!(sticky.wanted(&back), Some(index));
            assert_eq!(sticky.tells(&back, index, |_| false), None);
            assert_eq!(sticky.tells(&back, 1 - index, |_| true), None);
            assert!(sticky.tells(&back, 1 - index, |_| false).is_some());
        }
        assert_eq!(sticky.wanted(&request("dolmen=forged")), None);
    }
}
