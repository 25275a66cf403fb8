//! Answers of our own: a text, or a file.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::codec::write;
use crate::connection::send_all;
use crate::exchange::{Answer, Ended, Exchange};
use crate::limits::{ANSWER_COPY_BYTES, FILE_SLICE_BYTES};
use crate::outcome::Cause;
use crate::page;

impl Exchange<'_> {
    /// Answers with this status, these fields and this body. `Date`, `Content-Length` and `Connection` are written
    /// here; a HEAD request gets no body, but its length.
    pub async fn reply(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8]) -> Result<(), Ended> {
        let mut text = self.begin(status, fields, body.len() as u64)?;
        let sends_body = !self.head.is_head() && has_body(status);
        let joins = sends_body && body.len() <= ANSWER_COPY_BYTES;
        if joins {
            text.extend_from_slice(body);
        }
        self.send(&text).await?;
        if sends_body && !joins {
            self.send(body).await?;
        }
        self.thread.give_scratch(text);
        self.answer = Answer::Complete;
        Ok(())
    }

    /// Answers that something failed, with the page for it. `id`: what the page calls this request.
    pub async fn fail(&mut self, status: u16, fields: &[(&str, &str)], id: &str) -> Result<(), Ended> {
        let page = self.thread.pages().page(status, id);
        let fields: Vec<_> = [page::TYPE].iter().chain(fields).copied().collect();
        self.reply(status, &fields, page.as_bytes()).await
    }

    /// Answers with this part of a file. Small ones leave in one write with the head, large ones go from the page
    /// cache to the socket. A file that became shorter in the meantime breaks the connection off.
    pub async fn reply_file(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        file: &File,
        part: Range<u64>,
    ) -> Result<(), Ended> {
        let length = part.end.saturating_sub(part.start);
        let mut text = self.begin(status, fields, length)?;
        let mut at = part.start;
        if !self.head.is_head() && length > 0 {
            let copied = length.min(ANSWER_COPY_BYTES as u64) as usize;
            let head = text.len();
            text.resize(head + copied, 0);
            if let Err(error) = file.read_exact_at(&mut text[head..], at) {
                tracing::warn!("a file could not be read to its end: {error}");
                return Err(self.broke(Cause::FileBroken));
            }
            at += copied as u64;
        }
        self.send(&text).await?;
        self.thread.give_scratch(text);
        if !self.head.is_head() {
            self.send_file(file, at..part.end).await?;
        }
        self.answer = Answer::Complete;
        Ok(())
    }

    /// Writes the head. The rest of the request is thrown away when it is here already; otherwise the connection
    /// ends after the answer, since reading on could take as long as the client likes.
    fn begin(&mut self, status: u16, fields: &[(&str, &str)], length: u64) -> Result<Vec<u8>, Ended> {
        if self.is_answered() {
            return Err(Ended);
        }
        if self.body.fits(self.client.buffer.len())
            && let Ok(step) = self.body.advance(self.client.buffer.data_mut())
        {
            self.client.buffer.consume(step.pass);
        }
        self.keep &= self.body.is_done();
        self.answer = Answer::Begun;
        self.outcome.status = status;
        let mut text = self.thread.take_scratch();
        let length = (has_body(status) || status == 304 && length > 0).then_some(length);
        write::answer(&mut text, status, fields, self.keep_text(), length, &self.thread.date());
        self.outcome.head_out = text.len() as u64;
        Ok(text)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        match send_all(self.thread, self.client, bytes).await {
            Ok(()) => {
                self.outcome.bytes_out += bytes.len() as u64;
                Ok(())
            }
            Err(cause) => Err(self.broke(cause)),
        }
    }

    async fn send_file(&mut self, file: &File, part: Range<u64>) -> Result<(), Ended> {
        let mut at = part.start;
        while at < part.end {
            let count = (part.end - at).min(FILE_SLICE_BYTES as u64) as usize;
            let send = self.client.stream.send_file(file, &mut at, count);
            match self.client.deadline.within(self.thread.timeouts().body_ms, send).await {
                Ok(Ok(0)) => {
                    tracing::warn!("a file became shorter while it was sent");
                    return Err(self.broke(Cause::FileBroken));
                }
                Ok(Ok(sent)) => {
                    self.outcome.bytes_out += sent as u64;
                    self.thread.counts().bytes_out.add(sent as u64);
                    // Others get their turn: sendfile takes as much as the socket does, again and again.
                    self.thread.give_way().await;
                }
                Ok(Err(_)) => return Err(self.broke(Cause::ClientLeft)),
                Err(_) => return Err(self.broke(Cause::ClientLate)),
            }
        }
        Ok(())
    }
}

/// Whether answers of this status have a body (RFC 9110 section 6.4.1).
fn has_body(status: u16) -> bool {
    status >= 200 && !matches!(status, 204 | 304)
}
