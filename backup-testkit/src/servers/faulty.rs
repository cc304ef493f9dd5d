//! Stands between a client and an HTTP server and does what networks and servers do: errors, cuts, answers that are lost.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server says this, with the code of S3, and never sees the request.
    Refuse(u16, &'static str),
    /// The server does what was asked, and the client never hears of it.
    LoseAnswer,
    /// The connection ends in the middle of the request.
    CutRequest,
    /// One bit of the body is another on the other side.
    FlipByte,
    /// The connection ends in the middle of the answer.
    CutAnswer,
    /// Nothing moves any more.
    Stall,
    /// So many milliseconds pass before each piece of 64 KiB.
    Slow(u64),
}

/// A request as far as faults depend on it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Counts from 0.
    pub number: u64,
    /// Its first line: method, path and query.
    pub line: String,
    /// Whether it goes through only if a condition holds.
    pub conditional: bool,
}

/// A proxy on a free port of 127.0.0.1.
pub struct Faulty {
    port: u16,
    seen: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
}

impl Faulty {
    /// Before the server at this address; `fault` says what happens to each request.
    pub fn before(
        server: String,
        fault: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (seen, answered, fault) = (Arc::default(), Arc::default(), Arc::new(fault));
        let (count, bytes): (Arc<AtomicU64>, Arc<AtomicU64>) = (Arc::clone(&seen), Arc::clone(&answered));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (server, fault) = (server.clone(), fault.clone());
                let (count, bytes) = (count.clone(), bytes.clone());
                // Whatever breaks a connection is what this is for.
                std::thread::spawn(move || drop(pass(client, &server, &*fault, &count, &bytes)));
            }
        });
        Ok(Faulty { port, seen, answered })
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Bytes that the server has answered with so far, heads included.
    pub fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    /// Requests so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(SeqCst)
    }
}

/// One request and its answer; the connection ends after it.
fn pass(
    mut client: TcpStream,
    server: &str,
    fault: &dyn Fn(&Seen) -> Option<Fault>,
    count: &AtomicU64,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let lower = text.to_ascii_lowercase();
    let header = |name: &str| lower.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
    let length: u64 = header("content-length:").and_then(|v| v.parse().ok()).unwrap_or(0);
    let conditional = header("if-none-match:").is_some() || header("if-match:").is_some();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let fault = fault(&Seen { number: count.fetch_add(1, SeqCst), line, conditional });
    if let Some(Fault::Refuse(status, code)) = fault {
        io::copy(&mut (&mut client).take(length), &mut io::sink())?;
        let body = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
        let length = body.len();
        write!(client, "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")?;
        // A HEAD has no body; what comes after its head is never read.
        return client.write_all(body.as_bytes());
    }
    if fault == Some(Fault::Stall) {
        std::thread::sleep(Duration::from_secs(120));
        return Ok(());
    }
    let mut up = TcpStream::connect(server)?;
    let (first, rest) = text.split_once("\r\n").unwrap_or((&text, ""));
    write!(up, "{first}\r\nConnection: close\r\n{rest}")?;
    if fault == Some(Fault::CutRequest) {
        io::copy(&mut (&mut client).take(length / 2), &mut up)?;
        return client.shutdown(Shutdown::Both);
    }
    let mut left = length;
    let mut piece = vec![0; 64 << 10];
    while left > 0 {
        if let Some(Fault::Slow(ms)) = fault {
            std::thread::sleep(Duration::from_millis(ms));
        }
        let most = piece.len().min(usize::try_from(left).unwrap_or(piece.len()));
        let n = client.read(&mut piece[..most])?;
        if n == 0 {
            return Ok(());
        }
        if fault == Some(Fault::FlipByte) && left == length {
            piece[n / 2] ^= 1;
        }
        up.write_all(&piece[..n])?;
        left -= n as u64;
    }
    let mut answer = Vec::new();
    bytes.fetch_add(up.read_to_end(&mut answer)? as u64, SeqCst);
    match fault {
        Some(Fault::LoseAnswer) => client.shutdown(Shutdown::Both),
        Some(Fault::CutAnswer) => client.write_all(&answer[..answer.len() / 2]),
        _ => client.write_all(&answer),
    }
}
