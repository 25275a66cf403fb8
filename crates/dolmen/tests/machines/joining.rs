//! How machines come to belong to a site, and that nobody else does.

use std::time::Instant;

use testkit::until;

use super::stage::{
    ALL, DOLMEN, FILES, WITHIN, an_hour_ahead, begun, dolmen, join, joined, page, status, token,
};

#[test]
fn machines_join_serve_and_agree() {
    let bed = joined();
    for machine in ALL {
        assert_eq!(page(&bed, machine), "hello\n", "the files came to {machine}");
        let status = status(&bed, machine).unwrap();
        assert_eq!(status["machines"].as_array().unwrap().len(), 3);
        assert_eq!(status["generation"], 1);
    }
    let control = dolmen(&bed, "gamma", &["control"]);
    assert_eq!(
        control.out.matches(" votes ").count() + control.out.matches(" leads ").count(),
        3,
        "{control:?}"
    );

    // A change made on one machine is in force on all.
    let changed = FILES.replace("[dns]", "[dns]\nttl = \"7s\"");
    bed.machine("alpha").write("dolmen.toml", &changed);
    bed.machine("alpha").write("public/hello.txt", "again\n");
    let began = Instant::now();
    dolmen(&bed, "alpha", &["reload"]).fine();
    println!("a change is in force on all machines after {:?}", began.elapsed());
    for machine in ALL {
        assert_eq!(page(&bed, machine), "again\n");
        assert_eq!(status(&bed, machine).unwrap()["generation"], 2);
    }

    // The site file of another machine, which knows nothing of that change, is refused; then taken knowingly.
    let beta = bed.machine("beta");
    beta.write("dolmen.toml", FILES);
    std::fs::create_dir_all(beta.folder.join("public")).unwrap();
    beta.write("public/hello.txt", "beta\n");
    let refused = dolmen(&bed, "beta", &["reload"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.says("generation 2 is in force, from alpha; nothing was changed"), "{refused:?}");
    dolmen(&bed, "beta", &["reload", "--over", "2"]).fine();
    assert_eq!(page(&bed, "gamma"), "beta\n");
    let refused = dolmen(&bed, "alpha", &["reload"]);
    assert!(refused.says("generation 3 is in force, from beta"), "{refused:?}");
}

#[test]
fn a_token_is_good_once_soon_whole_and_for_one_machine() {
    let bed = begun();
    until("status says what is to be done", WITHIN, || {
        let says = "has not joined yet: `dolmen token beta` on alpha, then `dolmen join TOKEN` on beta";
        dolmen(&bed, "alpha", &["status"]).says(says).then_some(())
    });
    let first = token(&bed, "beta");

    let wrong = dolmen(&bed, "alpha", &["token", "delta"]);
    assert!(wrong.says("the site file has no machine delta; it has alpha, beta, gamma"), "{wrong:?}");
    let altered = format!("{}A{}", &first[..40], &first[41..]);
    let altered = if altered == first { format!("{}B{}", &first[..40], &first[41..]) } else { altered };
    let ran = join(&bed, "beta", &altered);
    assert_eq!(ran.code, 2);
    assert!(ran.says("the token is damaged"), "{ran:?}");
    assert!(join(&bed, "beta", "hello").says("this is no token"));

    join(&bed, "beta", &first).fine();
    let again = join(&bed, "gamma", &first);
    assert!(again.says("is good only once"), "{again:?}");
    assert!(status(&bed, "gamma").is_none(), "nothing of the site is on a machine that was refused");

    // One more machine of the same name.
    let second = token(&bed, "beta");
    let twin = join(&bed, "gamma", &second);
    assert!(twin.says("a machine named beta has joined before, and this is not the one"), "{twin:?}");

    // A clock that is an hour off.
    let third = token(&bed, "gamma");
    let late =
        bed.machine("gamma").run(&["sh", "-c", &an_hour_ahead(&bed, &format!("{DOLMEN} join {third}"))]);
    // Whole seconds, so that it may be 3,599 of them.
    let is_late =
        ["is 3599 s ahead", "is 36"].iter().any(|text| late.says(&format!("the clock of gamma {text}")));
    assert!(is_late && late.says("the token stays good"), "{late:?}");
    join(&bed, "gamma", &third).fine();

    // Cut off at the end of its join, and with another key for what is sealed for it, it joins once more.
    let state = bed.machine("gamma").state().join("www.foobar.com");
    for lost in ["site.json", "machines/gamma/sealing.json"] {
        std::fs::remove_file(state.join(lost)).unwrap();
    }
    join(&bed, "gamma", &token(&bed, "gamma")).fine();

    // A token that is late, by the clock of the machine that gave it.
    let late = dolmen(&bed, "alpha", &["token", "gamma", "--minutes", "0"]);
    assert!(late.says("a token is good for 1 to 1440 minutes"), "{late:?}");

    // On the machine that joined the site file begins nothing.
    bed.machine("gamma").write("dolmen.toml", FILES);
    let other = dolmen(&bed, "gamma", &["agent", "alpha"]);
    assert!(other.says("this machine is gamma of www.foobar.com, and not alpha"), "{other:?}");
}

#[test]
fn a_site_begins_once_and_only_on_its_first_machine() {
    let bed = begun();
    let beta = bed.machine("beta");
    beta.write("dolmen.toml", FILES);
    std::fs::create_dir_all(beta.folder.join("public")).unwrap();
    let second = dolmen(&bed, "beta", &["agent", "beta"]);
    assert!(second.says("begins on alpha, the first machine of its file, and beta joins it"), "{second:?}");
    // A wiped first machine: the others are asked before anything is made.
    let pretender = dolmen(&bed, "beta", &["agent"]);
    assert!(pretender.says("this machine belongs to no site yet"), "{pretender:?}");
    let ran = dolmen(&bed, "beta", &["status"]);
    assert!(ran.says("never started"), "{ran:?}");
}
