//! A bad network in front of a UDP server: hands datagrams on both ways, but for those that a
//! seeded generator has it lose. Each client has its own socket towards the server, as behind a NAT.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

pub(crate) struct Lossy {
    addr: SocketAddr,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

/// Datagrams, both ways together.
#[derive(Default)]
struct Seen {
    passed: AtomicU64,
    lost: AtomicU64,
}

/// What a client has to be able to send or take at once.
const BUFFER: usize = 1 << 20;

impl Lossy {
    /// `percent` of all datagrams do not arrive.
    pub(crate) async fn start(server: SocketAddr, percent: u32, seed: u64) -> io::Result<Lossy> {
        let outside = Arc::new(socket()?);
        let addr = outside.local_addr()?;
        let seen = Arc::new(Seen::default());
        let dice = Dice { state: seed.max(1), percent };
        let task = tokio::spawn(run(outside, server, dice, seen.clone()));
        Ok(Lossy { addr, seen, task })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many per cent were in fact lost.
    pub(crate) fn lost_percent(&self) -> f64 {
        let (passed, lost) = (
            self.seen.passed.load(Ordering::Relaxed) as f64,
            self.seen.lost.load(Ordering::Relaxed) as f64,
        );
        100.0 * lost / (passed + lost).max(1.0)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(outside: Arc<UdpSocket>, server: SocketAddr, mut dice: Dice, seen: Arc<Seen>) {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    // Ends with this task.
    let mut ways_back = JoinSet::new();
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((len, client)) = outside.recv_from(&mut buffer).await else { continue };
        let inside = match clients.get(&client) {
            Some(inside) => inside.clone(),
            None => {
                let Ok(inside) = socket().map(Arc::new) else { continue };
                clients.insert(client, inside.clone());
                let way_back =
                    back(outside.clone(), inside.clone(), client, dice.split(), seen.clone());
                ways_back.spawn(way_back);
                inside
            }
        };
        if !seen.note(dice.is_lost()) {
            // What the system has no room for is lost as well, and shows as such.
            let _ = inside.send_to(&buffer[..len], server).await;
        }
    }
}

async fn back(
    outside: Arc<UdpSocket>,
    inside: Arc<UdpSocket>,
    client: SocketAddr,
    mut dice: Dice,
    seen: Arc<Seen>,
) {
    let mut buffer = vec![0; 2048];
    loop {
        let Ok((len, _)) = inside.recv_from(&mut buffer).await else { continue };
        if !seen.note(dice.is_lost()) {
            let _ = outside.send_to(&buffer[..len], client).await;
        }
    }
}

impl Seen {
    /// Gives back what it is told.
    fn note(&self, is_lost: bool) -> bool {
        let counter = if is_lost { &self.lost } else { &self.passed };
        counter.fetch_add(1, Ordering::Relaxed);
        is_lost
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    socket.set_nonblocking(true)?;
    for option in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        set(&socket, option, BUFFER as libc::c_int)?;
    }
    UdpSocket::from_std(socket)
}

fn set(socket: &std::net::UdpSocket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the pointer is to a local of the size that is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// xorshift64*: the same losses in each run, as far as the same datagrams come.
struct Dice {
    state: u64,
    percent: u32,
}

impl Dice {
    fn is_lost(&mut self) -> bool {
        self.next() % 100 < u64::from(self.percent)
    }

    /// Another sequence for another way.
    fn split(&mut self) -> Dice {
        Dice { state: self.next().max(1), percent: self.percent }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_passes_comes_back_and_the_share_that_is_lost_is_the_one_asked_for() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let lossy = Lossy::start(server.local_addr().unwrap(), 20, 1).await.unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(lossy.addr()).await.unwrap();
        let echo = tokio::spawn(async move {
            let mut buffer = [0; 64];
            loop {
                let (len, from) = server.recv_from(&mut buffer).await.unwrap();
                server.send_to(&buffer[..len], from).await.unwrap();
            }
        });
        let (mut back, mut buffer) = (0, [0; 64]);
        for number in 0..1000u32 {
            client.send(&number.to_be_bytes()).await.unwrap();
            let patience = std::time::Duration::from_millis(3);
            while let Ok(received) = tokio::time::timeout(patience, client.recv(&mut buffer)).await
            {
                assert_eq!(received.unwrap(), 4);
                back += 1;
                if buffer[..4] == number.to_be_bytes() {
                    break;
                }
            }
        }
        echo.abort();
        assert!((550..730).contains(&back), "{back} of 1000, where 640 were to be expected");
        assert!((16.0..24.0).contains(&lossy.lost_percent()), "{}", lossy.lost_percent());
    }
}
