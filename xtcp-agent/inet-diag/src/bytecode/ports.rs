//! Lists of ports as a program.

use super::{ACCEPT, Assembler, Condition, Place, PortOrder, Program, REJECT, Side};

impl Program {
    /// Passes sockets one of whose ports is listed, and those that have no local port yet; `None` when that is longer
    /// than [`super::PROGRAM_MAX`]. An empty list passes everything.
    ///
    /// Neighbouring ports of the list become one range, so a sorted list makes the shortest program.
    pub fn any_port_of(ports: &[u16]) -> Option<Self> {
        let mut assembler = Assembler::new();
        if ports.is_empty() {
            return Some(assembler.finish());
        }
        // Written backwards: the last test refuses, each before it goes on to the next. Port 0 is no port yet.
        assembler.test(
            &Condition::Port { side: Side::Source, order: PortOrder::Eq, port: 0 },
            ACCEPT,
            REJECT,
        )?;
        for range in ranges(ports) {
            for side in [Side::Destination, Side::Source] {
                let no = assembler.here();
                within(&mut assembler, side, range, ACCEPT, no)?;
            }
        }
        Some(assembler.finish())
    }

    /// Refuses sockets one of whose ports is listed; `None` when that is longer than [`super::PROGRAM_MAX`].
    pub fn no_port_of(ports: &[u16]) -> Option<Self> {
        let mut assembler = Assembler::new();
        for range in ranges(ports) {
            for side in [Side::Destination, Side::Source] {
                let outside = assembler.here();
                within(&mut assembler, side, range, REJECT, outside)?;
            }
        }
        Some(assembler.finish())
    }
}

/// Whether one side's port lies in the range.
fn within(
    assembler: &mut Assembler,
    side: Side,
    (first, last): (u16, u16),
    inside: Place,
    outside: Place,
) -> Option<()> {
    let test = |order, port| Condition::Port { side, order, port };
    if first == last {
        return assembler.test(&test(PortOrder::Eq, first), inside, outside);
    }
    assembler.test(&test(PortOrder::Le, last), inside, outside)?;
    let upper = assembler.here();
    assembler.test(&test(PortOrder::Ge, first), upper, outside)
}

/// Runs of neighbours, as they stand in the list.
fn ranges(ports: &[u16]) -> impl Iterator<Item = (u16, u16)> {
    ports.chunk_by(|one, next| one.checked_add(1) == Some(*next)).filter_map(|run| {
        let (first, last) = (run.first()?, run.last()?);
        Some((*first, *last))
    })
}
