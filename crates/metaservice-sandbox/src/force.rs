//! Orders of clients to end the machine at once, on their way to the driver.

use metaservice::control;
use tokio::sync::{mpsc, oneshot};

use crate::life::Force;

type Order = (Force, oneshot::Sender<()>);

/// The driver's end: the orders, and the clients that wait until the machine has ended.
#[derive(Debug)]
pub(crate) struct ForceOrders {
    orders: mpsc::UnboundedReceiver<Order>,
    waiting: Vec<oneshot::Sender<()>>,
}

/// What clients order with, and where the orders arrive.
pub(crate) fn channel() -> (control::Force, ForceOrders) {
    let (sender, orders) = mpsc::unbounded_channel::<Order>();
    let force = control::Force::new(move |reason| {
        let force = match reason {
            control::ForceReason::Asked => Force::Asked,
            control::ForceReason::KillNotTaken => Force::KillNotTaken,
        };
        let (done, ended) = oneshot::channel();
        // Without a driver, the machine has ended.
        let _ = sender.send((force, done));
        async move {
            // Nothing is sent: the driver drops its end.
            let _ = ended.await;
        }
    });
    (force, ForceOrders { orders, waiting: Vec::new() })
}

impl ForceOrders {
    /// The next order; without end if there is none. Cancel safe.
    pub(crate) async fn next(&mut self) -> Force {
        match self.orders.recv().await {
            Some((force, done)) => {
                self.waiting.push(done);
                force
            }
            None => std::future::pending().await,
        }
    }

    /// The clients that wait. They have their answers when this is dropped.
    pub(crate) fn take_waiting(&mut self) -> Vec<oneshot::Sender<()>> {
        std::mem::take(&mut self.waiting)
    }
}
