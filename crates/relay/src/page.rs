//! The page that a person sees when something failed: what happened, whether to try again, and the request's id.
//! It tells nothing of the servers behind us.

use crate::codec::write::reason;

/// The media type of [`error`].
pub const TYPE: (&str, &str) = ("content-type", "text/html; charset=utf-8");

/// An HTML page that needs nothing else. `id` is written as text, whatever is in it.
pub fn error(status: u16, id: &str) -> String {
    let (reason, id) = (reason(status), escaped(id));
    let advice = match status {
        502..=504 => "The site is not able to answer at the moment. Please try again in a few seconds.",
        404 => "There is nothing at this address.",
        _ => "The request could not be answered.",
    };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{status} {reason}</title>\n\
         <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem;\
         color:#222;background:#fff}}h1{{font-size:1.5rem}}small{{color:#666}}\
         @media(prefers-color-scheme:dark){{body{{color:#ddd;background:#111}}small{{color:#999}}}}</style>\n\
         <h1>{status} {reason}</h1>\n<p>{advice}</p>\n<p><small>Request {id}</small></p>\n</html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_text() {
        let page = error(502, "<script>");
        assert!(page.contains("502 Bad Gateway") && page.contains("Request &lt;script&gt;"));
    }
}
