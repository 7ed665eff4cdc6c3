//! Documents that say the same as the code.

use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_readmes_examples_are_those_of_the_folder() {
    let readme = read("README.md");
    let examples = readme.split("```rust,no_run\n").skip(1).filter_map(|rest| rest.split("```").next());
    assert!(examples.eq([read("examples/quickstart.rs"), read("examples/sealing.rs")]));
}

#[test]
fn every_design_page_is_in_the_index_and_every_link_leads_somewhere() {
    let design = Path::new(env!("CARGO_MANIFEST_DIR")).join("design");
    let index = read("design/README.md");
    for folder in ["", "results/"] {
        for entry in std::fs::read_dir(design.join(folder)).expect("a folder") {
            let name = entry.expect("readable").file_name().into_string().expect("UTF-8");
            let name = format!("{folder}{name}");
            let is_page = name.ends_with(".md") && name != "README.md";
            assert!(!is_page || index.contains(&format!("({name})")), "{name} is not in the index");
        }
    }
    for link in index.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        assert!(design.join(link).exists(), "{link} does not exist");
    }
}

#[test]
fn every_module_is_in_the_map() {
    let map = read("design/architecture.md");
    let lib = read("src/lib.rs");
    let modules = lib.lines().filter_map(|line| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    for module in modules {
        assert!(map.contains(&format!("`{module}`")), "{module} is not in the module map");
    }
}
