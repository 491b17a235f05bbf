//! All rows of all captures, each read by the protocol that was asked for, as its kernel packs it.

use xtcp_inet_diag::attr::info::AccEcnLayout;

use super::fixtures::every_row;
use super::same::{Beside, assert_same_as};

#[test]
fn every_row_of_every_kernel_and_protocol_has_the_bytes_of_prost() {
    let (mut rows, mut others) = (0, 0);
    for (counter, row) in (1..).zip(every_row()) {
        let layout =
            if row.capture.version() < (7, 0) { AccEcnLayout::Halves } else { AccEcnLayout::BitFields };
        assert_same_as(row.payload, row.reading(), &Beside::new(counter), layout);
        rows += 1;
        others += u32::from(!row.is_tcp());
    }
    assert!(rows > 2000 && others > 30, "{rows} rows, {others} of them not TCP's");
}
