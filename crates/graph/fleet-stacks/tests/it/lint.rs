//! What AWS's own linter says, and what the schemas it brings say about replacement.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    process::Command,
};

use fleet_sim::venv;
use fleet_stacks::{TABLE, pretty};

use crate::matrix::templates;

const CFN_LINT: &str = "cfn-lint==1.58.0";

fn programs() -> PathBuf {
    venv("cfn-lint", CFN_LINT)
}

#[test]
fn cfn_lint_reports_no_error_and_no_warning_on_any_template() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    // Many of them are the same: the shared stack knows nothing of zones.
    for (name, rendered) in templates().into_iter().filter(|(_, rendered)| seen.insert(rendered.hash)) {
        let file = folder.path().join(format!("{name}.json"));
        fs::write(&file, pretty(&rendered.body)).unwrap();
        files.push(file);
    }
    // All at once: starting it takes longer than most of what it does.
    let output =
        Command::new(programs().join("cfn-lint")).args(["--format", "parseable", "--"]).args(&files).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(said, "");
}

/// Prints `kind, always, perhaps` per type, without paths that are below another one of the same list.
const SCHEMAS: &str = r#"
import json, pathlib, sys, cfnlint
schemas = pathlib.Path(cfnlint.__file__).parent / "data/schemas"
names = json.loads((schemas / "providers/us-east-1.json").read_text())
def paths(schema, key):
    found = sorted({path.removeprefix("/properties/") for path in schema.get(key, [])})
    return [path for path in found if not any(path.startswith(other + "/") for other in found)]
rows = {}
for kind in sys.argv[1:]:
    schema = json.loads((schemas / "resources" / (names[kind] + ".json")).read_text())
    rows[kind] = [paths(schema, "createOnlyProperties"), paths(schema, "conditionalCreateOnlyProperties")]
print(json.dumps(rows))
"#;

#[test]
fn the_table_of_create_only_properties_is_what_aws_publishes() {
    let kinds = TABLE.iter().map(|row| row.kind);
    let output = Command::new(programs().join("python")).args(["-c", SCHEMAS]).args(kinds).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let published: BTreeMap<String, [Vec<String>; 2]> = serde_json::from_slice(&output.stdout).unwrap();
    let list = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<String>>();
    for row in &TABLE {
        assert_eq!(published[row.kind], [list(row.always), list(row.perhaps)], "{}", row.kind);
    }
}
