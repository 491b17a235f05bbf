use std::fs::File;
use std::thread;

use nix::sched::CloneFlags;

use super::*;

const BLUE: NetnsId = NetnsId { inode: 1, cookie: 11 };
const GREEN: NetnsId = NetnsId { inode: 2, cookie: 22 };

#[test]
fn who_has_no_id_is_asked_again_once_one_was_given() {
    let nsids = Nsids::default();
    let first = nsids.wanted(BLUE).expect("never asked");
    nsids.answered(BLUE, first, None);
    assert_eq!((nsids.wanted(BLUE), nsids.get(BLUE)), (None, None));
    assert_eq!(nsids.heard(Told::Assigned(7)), None);
    let second = nsids.wanted(BLUE).expect("it may be the one");
    nsids.answered(BLUE, second, Some(7));
    nsids.heard(Told::Assigned(8));
    assert_eq!((nsids.wanted(BLUE), nsids.get(BLUE)), (None, Some(7)), "ids do not change");
}

#[test]
fn an_id_given_between_question_and_answer_is_asked_for_again() {
    let nsids = Nsids::default();
    let asked = nsids.wanted(BLUE).expect("never asked");
    nsids.heard(Told::Assigned(7));
    nsids.answered(BLUE, asked, None);
    assert!(nsids.wanted(BLUE).is_some());
}

#[test]
fn an_end_names_its_namespace_once() {
    let nsids = Nsids::default();
    nsids.answered(BLUE, 0, Some(7));
    nsids.answered(GREEN, 0, Some(8));
    assert_eq!(nsids.heard(Told::Released(7)), Some(BLUE));
    assert_eq!(nsids.heard(Told::Released(7)), None);
    assert_eq!((nsids.get(BLUE), nsids.get(GREEN)), (None, Some(8)));
    nsids.forget(GREEN);
    assert_eq!((nsids.heard(Told::Released(8)), nsids.counts()), (None, (0, 0)));
}

#[test]
fn an_id_that_another_has_now_is_not_the_former_holders() {
    let nsids = Nsids::default();
    nsids.answered(BLUE, 0, Some(7));
    nsids.answered(GREEN, 0, Some(7));
    assert_eq!((nsids.get(BLUE), nsids.get(GREEN)), (None, Some(7)));
    nsids.forget(BLUE);
    assert_eq!(nsids.heard(Told::Released(7)), Some(GREEN));
}

#[test]
fn garbage_holds_no_message() {
    for datagram in [&[][..], &[0; 3], &[0; 16], &[0xff; 64]] {
        assert_eq!(messages(datagram).count(), 0, "{datagram:?}");
    }
}

/// Runs `work` on a thread of its own.
fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::Builder::new().name("apart".to_owned()).spawn(work).expect("a thread");
    thread.join().expect("it ends well")
}

/// Runs in a namespace of its own, where nobody else gives ids; needs root.
#[test]
fn the_kernel_tells_an_id_when_asked_and_when_it_is_given_and_ends() {
    apart(|| {
        nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut notices = Notices::new().expect("the group");
            let mut query = Query::new().expect("a socket");
            let other = apart(|| {
                nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("root");
                File::open("/proc/thread-self/ns/net").expect("its own namespace")
            });
            assert_eq!(query.of(other.as_fd()).expect("an answer"), None);
            assert!(query.of(File::open("/proc/self/stat").expect("a file").as_fd()).is_err());

            give_id(&other, 42);
            assert_eq!(next(&mut notices).await, Told::Assigned(42));
            assert_eq!(query.of(other.as_fd()).expect("an answer"), Some(42));
            drop(other);
            assert_eq!(next(&mut notices).await, Told::Released(42));
        });
    });
}

async fn next(notices: &mut Notices) -> Told {
    let notice = tokio::time::timeout(Duration::from_secs(30), notices.next()).await;
    notice.expect("a notice within 30 s").expect("a notice")
}

fn give_id(namespace: &File, id: i32) {
    let mut order = NsidMessage::default();
    order.attributes = vec![
        NsidAttribute::Id(id),
        NsidAttribute::Fd(u32::try_from(namespace.as_raw_fd()).expect("a descriptor")),
    ];
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | netlink_packet_core::NLM_F_ACK;
    let mut message = NetlinkMessage::new(header, RouteNetlinkMessage::NewNsId(order).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    let socket = Socket::new(NETLINK_ROUTE).expect("a socket");
    socket.send(&bytes, 0).expect("sent");
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    socket.recv(&mut answer, 0).expect("an answer");
    let payload = messages(&answer).next().expect("one message").payload;
    assert!(matches!(&payload, NetlinkPayload::Error(error) if error.code.is_none()), "{payload:?}");
}
