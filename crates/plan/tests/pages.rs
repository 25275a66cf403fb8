//! The site files in the pages under docs/ are site files.

use std::path::Path;

use plan::{Files, Ground, Place, Site, render};

/// The folders that the page speaks of.
struct Told;

impl Files for Told {
    fn is_folder(&self, path: &Path) -> bool {
        path == Path::new("errors")
    }

    fn is_file(&self, _: &Path) -> bool {
        false
    }
}

#[test]
fn the_page_for_users_of_haproxy_holds() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/balancer.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let blocks: Vec<&str> =
        page.split("\n```toml\n").skip(1).filter_map(|rest| rest.split("\n```").next()).collect();
    assert!(blocks.len() >= 2, "{} site files in the page", blocks.len());
    for block in blocks {
        let ground = Ground { place: Place::Machines, generation: 1, folder: "shop", files: &Told };
        if let Err(mistakes) = Site::from_text(block).plan(&ground) {
            panic!("{}", render(&mistakes, block, "docs/balancer.md", false));
        }
    }
}
