//! HTTP/1.1 requests, each over a fresh TCP connection or one after the other over one. Enough for the session API on loopback, and
//! independent of the server's own code.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A loaded machine may be slow, but a server that says nothing for so long is broken.
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_RESPONSE_LEN: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `method url` with `headers` and `body`, and reads the whole answer.
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let (authority, path) = split(url)?;
    let mut headers = headers.to_vec();
    headers.push(("Connection", "close"));
    let exchange = async {
        let mut connection = Connection::open(authority).await?;
        connection.request(method, path, &headers, body).await
    };
    timeout(TIMEOUT, exchange).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{method} {url}: no answer in {TIMEOUT:?}"))
    })?
}

/// A connection that is used again and again, as that of an application's own server.
pub struct Connection {
    stream: TcpStream,
    authority: String,
    answer: Vec<u8>,
}

impl Connection {
    /// `authority` is a host and a port.
    pub async fn open(authority: &str) -> io::Result<Connection> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, authority: authority.to_owned(), answer: Vec::new() })
    }

    /// One request and its answer; without a limit in time.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let (authority, len) = (&self.authority, body.len());
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {len}\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut request = request.into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await?;
        self.answer.clear();
        read_answer(&mut self.stream, &mut self.answer).await?;
        parse(&self.answer)
    }
}

/// Its host with the port, and its path.
fn split(url: &str) -> io::Result<(&str, &str)> {
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        let text = format!("{url}: expected an http:// address");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    Ok(match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    })
}

/// Reads until the body is whole by its `Content-Length`, or the server closes.
async fn read_answer(stream: &mut TcpStream, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut limited = stream.take(MAX_RESPONSE_LEN);
    loop {
        if let Some(end) = find(answer, b"\r\n\r\n") {
            let (_, headers) = parse_head(&answer[..end])?;
            let len = headers.iter().find(|(n, _)| n == "content-length");
            if let Some(len) = len.and_then(|(_, v)| v.parse::<usize>().ok())
                && answer.len() >= end + 4 + len
            {
                return Ok(());
            }
        }
        if limited.read_buf(answer).await? == 0 {
            return Ok(());
        }
    }
}

fn parse(answer: &[u8]) -> io::Result<Response> {
    let end = find(answer, b"\r\n\r\n").ok_or_else(|| {
        io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed before its headers ended")
    })?;
    let (status, headers) = parse_head(&answer[..end])?;
    let body = &answer[end + 4..];
    let len = headers.iter().find(|(n, _)| n == "content-length");
    let body = match len.and_then(|(_, v)| v.parse::<usize>().ok()) {
        Some(len) => body.get(..len).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the body has {} of {len} bytes", body.len()),
            )
        })?,
        None => body,
    };
    Ok(Response { status, headers, body: body.to_vec() })
}

type Head = (u16, Vec<(String, String)>);

fn parse_head(head: &[u8]) -> io::Result<Head> {
    let malformed = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let head = std::str::from_utf8(head).map_err(|_| malformed("headers are not UTF-8"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
    let status = status.and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| malformed("expected `HTTP/1.1` and a status code"))?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    Ok((status, headers))
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_as_long_as_its_header_says() {
        let answer =
            parse(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nX-Y: z \r\n\r\n{}").unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (201, "{}"));
        assert_eq!(answer.header("x-y"), Some("z"));
        assert!(parse(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n{}").is_err());
        assert!(parse(b"HTTP/1.1 201 Created\r\n").is_err());
        assert!(parse(b"ICY 200\r\n\r\n").is_err());
    }
}
