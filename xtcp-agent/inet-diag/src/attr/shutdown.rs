//! `INET_DIAG_SHUTDOWN`, `sk_shutdown`. Since Linux 3.7. Not in time-wait and request sockets' rows.

/// Which directions are shut down: bit 0 receiving, bit 1 sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown(pub u8);

impl Shutdown {
    /// `RCV_SHUTDOWN`: nothing more will be received.
    pub const fn receive(self) -> bool {
        self.0 & 1 != 0
    }

    /// `SEND_SHUTDOWN`: nothing more will be sent.
    pub const fn send(self) -> bool {
        self.0 & 2 != 0
    }
}

super::decode_integer!(Shutdown(u8));
