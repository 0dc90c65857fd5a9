//! Connections that are slow, cut, stalled or left half-open, as the seed has it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rand::RngExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::time::sleep;

use crate::World;

/// What a connection meets.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Fine,
    /// Ends for both after so many bytes.
    Cut(usize),
    /// Stands still after so many bytes, for so long.
    Stall(usize, Duration),
    /// Ends for the guest after so many bytes; what it had sent reaches the host so much later.
    HalfOpen(usize, Duration),
    /// Ends on the way to the host after so many bytes; what the host says still comes.
    OneWay(usize),
}

impl Fate {
    fn limit(self) -> usize {
        match self {
            Self::Fine => usize::MAX,
            Self::Cut(bytes)
            | Self::Stall(bytes, _)
            | Self::HalfOpen(bytes, _)
            | Self::OneWay(bytes) => bytes,
        }
    }
}

impl World {
    fn fate(&self) -> Fate {
        let mut troubles = self.troubles.lock().unwrap();
        if *troubles == 0 {
            return Fate::Fine;
        }
        let fate = self.draw(|random| {
            let bytes = random.random_range(0..3000);
            match random.random_range(0..10) {
                0..=4 => Fate::Fine,
                5 => Fate::Cut(bytes),
                6 => Fate::OneWay(bytes),
                7 => Fate::Stall(bytes, Duration::from_secs(random.random_range(1..200))),
                _ => Fate::HalfOpen(bytes, Duration::from_secs(random.random_range(1..60))),
            }
        });
        if !matches!(fate, Fate::Fine) {
            *troubles -= 1;
        }
        fate
    }

    /// A new connection of the guest's; one to a host that is down ends at once.
    pub(crate) fn connect(self: &Arc<Self>) -> DuplexStream {
        let (guest, near) = tokio::io::duplex(2048);
        let Some(service) = self.service() else { return guest };
        let (far, host) = tokio::io::duplex(2048);
        let serving = async move { drop(service.serve_connection(host).await) };
        let handle = tokio::spawn(serving);
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
        let (world, fate) = (Arc::clone(self), self.fate());
        tokio::spawn(async move { world.carry(near, far, fate).await });
        guest
    }

    async fn carry(&self, near: DuplexStream, far: DuplexStream, fate: Fate) {
        let (mut from_guest, mut to_guest) = tokio::io::split(near);
        let (mut from_host, mut to_host) = tokio::io::split(far);
        let (mut up, mut down) = (self.way("up", fate), self.way("down", fate));
        {
            let up = up.run(self, &mut from_guest, &mut to_host);
            let down = down.run(self, &mut from_host, &mut to_guest);
            tokio::pin!(up, down);
            tokio::select! {
                biased;
                cut = &mut up => if !cut { down.await; },
                cut = &mut down => if !cut { up.await; },
            }
        }
        if let Fate::HalfOpen(_, late) = fate {
            drop((from_guest, to_guest));
            sleep(late).await;
            let _ = to_host.write_all(&up.last).await;
        }
    }

    fn way(&self, name: &'static str, fate: Fate) -> Way {
        self.draw(|random| Way {
            name,
            fate,
            latency: Duration::from_millis(random.random_range(0..30)),
            block: vec![0; random.random_range(64..1500)],
            last: Vec::new(),
        })
    }
}

/// One direction of a connection.
struct Way {
    name: &'static str,
    fate: Fate,
    latency: Duration,
    block: Vec<u8>,
    /// What was under way when the connection was cut.
    last: Vec<u8>,
}

impl Way {
    /// Carries bytes until they end; `true` when the connection is to be cut.
    async fn run(
        &mut self,
        world: &World,
        from: &mut ReadHalf<DuplexStream>,
        to: &mut WriteHalf<DuplexStream>,
    ) -> bool {
        let (limit, mut carried) = (self.fate.limit(), 0usize);
        while let Ok(count @ 1..) = from.read(&mut self.block).await {
            sleep(self.latency).await;
            world.note(self.name, count);
            carried = carried.saturating_add(count);
            if carried > limit {
                match self.fate {
                    Fate::Stall(_, time) => sleep(time).await,
                    Fate::OneWay(_) if self.name == "up" => break,
                    Fate::OneWay(_) => {}
                    _ => {
                        self.last.extend_from_slice(&self.block[..count]);
                        return true;
                    }
                }
            }
            if to.write_all(&self.block[..count]).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
        false
    }
}
