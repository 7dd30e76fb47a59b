//! The rules of the tree: who imports whom, and what stands where.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Which crates of ours each of ours imports.
fn imports() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let imported = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let normal = dependencies.filter(|d| d["kind"].is_null()).map(name);
        normal.filter(|name| name.starts_with("muster-")).collect()
    };
    packages.iter().map(|package| (name(package), imported(package))).collect()
}

#[test]
fn imports_point_one_way() {
    let allowed = |importer: &str, imported: &str| {
        let libs = ["muster-scim", "muster-runtime", "muster-proto"];
        match importer {
            "muster" => true,
            "muster-gateway" | "muster-identity" => libs.contains(&imported),
            "muster-group" | "muster-approver" => {
                libs.contains(&imported) || imported == "muster-follower"
            }
            "muster-follower" => ["muster-runtime", "muster-proto"].contains(&imported),
            // The words that all feeds share, of `muster.feed.v1`.
            "muster-runtime" => imported == "muster-proto",
            "xtask" => imported == "muster-local-postgres",
            "muster-bench" => matches!(imported, "muster-local-postgres" | "muster-proto"),
            _ => false,
        }
    };
    let imports = imports();
    assert!(imports.len() >= 9, "{imports:?}");
    for (importer, imported) in imports {
        for imported in imported {
            assert!(allowed(&importer, &imported), "{importer} imports {imported}");
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

#[test]
fn sql_stands_in_stores_only() {
    for folder in ["services", "gateway"] {
        for file in sources(&root().join(folder)) {
            let in_store = file.components().any(|part| part.as_os_str() == "store");
            let text = fs::read_to_string(&file).unwrap();
            let has_sql = text.contains("sqlx::query") || text.contains("QueryBuilder");
            assert!(in_store || !has_sql, "{}", file.display());
        }
    }
}

#[test]
fn no_service_knows_of_scim_json_or_http() {
    for service in ["identity", "group", "approver"] {
        let manifest =
            fs::read_to_string(root().join(format!("services/{service}/Cargo.toml"))).unwrap();
        for foreign in ["axum", "hyper", "http.workspace"] {
            assert!(!manifest.contains(foreign), "{service} depends on {foreign}");
        }
        for file in sources(&root().join(format!("services/{service}/src"))) {
            let text = fs::read_to_string(&file).unwrap();
            for foreign in [
                "userName",
                "urn:ietf",
                "urn:learnerbly",
                "muster_scim::patch",
                "muster_scim::resource",
                "muster_scim::schema",
            ] {
                // The names of SCIM's words may stand in comments.
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let found = code.into_iter().any(|line| line.contains(foreign));
                assert!(!found, "{} says {foreign}", file.display());
            }
        }
    }
}

#[test]
fn the_client_in_the_documentation_is_the_one_that_compiles() {
    let page = fs::read_to_string(root().join("docs/grpc.md")).unwrap();
    let example = fs::read_to_string(root().join("examples/follow.rs")).unwrap();
    assert!(page.contains(&example), "docs/grpc.md does not hold examples/follow.rs as it is");
}
