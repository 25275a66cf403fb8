//! The bed of several machines does what its tests rely on: machines reach each other and the outside, are cut
//! off, parted, frozen and lost, and nothing of them is left.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use testkit::{Bed, until};

const WITHIN: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_millis(500);

/// A service that anybody can connect to.
const SERVICE: [&str; 6] = ["python3", "-m", "http.server", "--directory", ".", "8000"];

fn answers(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, CONNECT).is_ok()
}

fn reaches(bed: &Bed, from: &str, to: &str) -> bool {
    let address = bed.address(to, 8000);
    let line = format!("exec 3<>/dev/tcp/{}/{}", address.ip(), address.port());
    bed.machine(from).run(&["timeout", "0.5", "bash", "-c", &line]).code == 0
}

#[test]
fn machines_are_reached_parted_cut_off_frozen_and_lost() {
    let mut bed = Bed::new(&["alpha", "beta"]);
    for name in ["alpha", "beta"] {
        bed.machine_mut(name).serve(&SERVICE);
        let address = bed.address(name, 8000);
        until("the service from outside", WITHIN, || answers(address).then_some(()));
    }
    assert!(reaches(&bed, "alpha", "beta") && reaches(&bed, "beta", "alpha"));

    bed.part("alpha", "beta");
    assert!(!reaches(&bed, "alpha", "beta") && !reaches(&bed, "beta", "alpha"));
    assert!(answers(bed.address("alpha", 8000)), "the outside is no part of a partition");
    bed.heal();
    assert!(reaches(&bed, "alpha", "beta"));

    bed.cut("beta");
    assert!(!reaches(&bed, "alpha", "beta") && !answers(bed.address("beta", 8000)));
    bed.plug("beta");
    until("the cable", WITHIN, || reaches(&bed, "alpha", "beta").then_some(()));

    bed.machine("beta").lose_packets(100);
    assert!(!reaches(&bed, "alpha", "beta"));
    bed.heal();

    let before = bed.machine("beta").processes();
    assert!(!before.is_empty());
    bed.machine("beta").freeze();
    bed.machine("beta").thaw();
    bed.lose("beta");
    assert!(before.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
    assert!(!answers(bed.address("beta", 8000)));
    bed.bring_back("beta");
    until("the service after a boot", WITHIN, || answers(bed.address("beta", 8000)).then_some(()));
    assert!(reaches(&bed, "alpha", "beta"));
}

#[test]
fn machines_have_accounts_and_disks_of_their_own() {
    let mut bed = Bed::new(&["alpha", "beta"]);
    let account = ["useradd", "--system", "only-here"];
    bed.machine("alpha").run(&account).fine();
    bed.machine("alpha").run(&["touch", "/var/lib/dolmen/file"]).fine();
    assert_ne!(bed.machine("beta").run(&["id", "only-here"]).code, 0);
    assert_ne!(bed.machine("beta").run(&["ls", "/var/lib/dolmen/file"]).code, 0);
    bed.lose("alpha");
    bed.bring_back("alpha");
    bed.machine("alpha").run(&["ls", "/var/lib/dolmen/file"]).fine();
    bed.lose("alpha");
    bed.machine("alpha").wipe();
    bed.bring_back("alpha");
    assert_ne!(bed.machine("alpha").run(&["ls", "/var/lib/dolmen/file"]).code, 0);
}
