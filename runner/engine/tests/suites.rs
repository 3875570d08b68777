//! Every bundled scenario loads, and its variants have stable, distinct names.

use fencepost_engine::lang;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../suites");
    let mut out = Vec::new();
    for folder in std::fs::read_dir(root).expect("suites").flatten() {
        let Ok(entries) = std::fs::read_dir(folder.path()) else { continue };
        let paths = entries.flatten().map(|e| e.path());
        out.extend(paths.filter(|p| p.extension().is_some_and(|e| e == "yaml")));
    }
    out.sort();
    out
}

#[test]
fn bundled_scenarios_have_no_mistake() {
    let mut report = String::new();
    let mut names = std::collections::BTreeSet::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("readable");
        let path = file.to_str().expect("ASCII");
        let name = &path[path.find("suites/").unwrap_or(0)..];
        match lang::load(name, &text) {
            Ok(scenarios) => {
                for variant in scenarios.iter().flat_map(lang::Scenario::variants) {
                    assert!(names.insert(variant.name.clone()), "{} twice", variant.name);
                    assert_eq!(variant.name, variant.test.name);
                }
            }
            Err(diagnostics) => report.push_str(&diagnostics.render(false)),
        }
    }
    assert!(report.is_empty(), "\n{report}");
    assert!(!names.is_empty(), "there are bundled scenarios");
}

/// The example that docs/SCENARIOS.md tells its reader to paste.
#[test]
fn the_documented_example_is_right() {
    let doc = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SCENARIOS.md");
    let doc = std::fs::read_to_string(doc).expect("docs/SCENARIOS.md");
    let blocks = doc.split("```yaml\n").skip(1).filter_map(|b| b.split("```").next());
    let example = blocks.filter(|b| b.starts_with("scenario: my/")).collect::<String>();
    let scenarios = lang::load("first.yaml", &example).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(scenarios[0].variants().len(), 3);
}

#[test]
fn every_form_of_a_bind_operation_fits_the_schema() {
    let schema = lang::schema::schema();
    let mut steps = schema["$defs"]["step"]["anyOf"].as_array().expect("steps").iter();
    let bind = steps.find(|step| step["required"][0] == "bind").expect("a bind step");
    let fits = |value: Value| valid(&value, &bind["properties"]["bind"], &schema);
    assert!(fits(json!("map 0..2 a")));
    assert!(fits(json!({ "map": "a", "at": 0, "size": "4K" })));
    assert!(fits(json!({ "at": 0, "size": "4K", "prefetch": "vram" })));
    assert!(fits(json!(["unmap 0..2", { "at": 0, "size": 4096, "unmap": "memory" }])));
    assert!(!fits(json!({ "at": 0, "size": "4K", "prefech": "vram" })));
}

/// As much of JSON Schema as the schema uses.
fn valid(value: &Value, schema: &Value, root: &Value) -> bool {
    if let Some(name) = schema["$ref"].as_str().and_then(|r| r.strip_prefix("#/$defs/")) {
        return valid(value, &root["$defs"][name], root);
    }
    let all = |key: &str| schema[key].as_array();
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_u64() || n.is_i64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let is = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let typed = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        one => is(one),
    };
    let dollar = schema["pattern"] != "\\$" || value.as_str().is_some_and(|s| s.contains('$'));
    let listed = all("enum").is_none_or(|words| words.contains(value));
    let any = all("anyOf").is_none_or(|all| all.iter().any(|s| valid(value, s, root)));
    let items = value.as_array().is_none_or(|items| {
        schema["items"].is_null() || items.iter().all(|item| valid(item, &schema["items"], root))
    });
    let keys = value.as_object().is_none_or(|map| {
        let required = all("required").is_none_or(|keys| {
            keys.iter().all(|k| map.contains_key(k.as_str().unwrap_or_default()))
        });
        required
            && map.iter().all(|(key, value)| match &schema["properties"][key] {
                Value::Null if schema["additionalProperties"] == false => false,
                Value::Null if schema["additionalProperties"].is_object() => {
                    valid(value, &schema["additionalProperties"], root)
                }
                Value::Null => true,
                property => valid(value, property, root),
            })
    });
    typed && dollar && listed && any && items && keys
}

#[test]
fn bundled_scenarios_meet_the_json_schema() {
    let root = lang::schema::schema();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("readable");
        let documents: Vec<Value> = serde_yaml::from_multiple(&text).expect("YAML");
        for document in &documents {
            assert!(valid(document, &root, &root), "{} does not meet the schema", file.display());
        }
    }
    let broken =
        serde_json::json!({ "scenario": "a/b", "about": "c", "expect": [], "evidense": {} });
    assert!(!valid(&broken, &root, &root), "an unknown key is refused");
    let step = serde_json::json!({ "scenario": "a/b", "about": "c", "expect": [], "evidence": {},
        "steps": [{ "gpu.stor": "a = 1" }] });
    assert!(!valid(&step, &root, &root), "an unknown step is refused");
}

/// What runs on every change leaves nothing out: each scenario that is not a long one, and each ioctl
/// and command of the sweep over the interface.
#[test]
fn tier_smoke_has_every_scenario_and_every_ioctl() {
    use fencepost_engine::lang::Tier;
    use std::collections::BTreeMap;
    let mut tiers: BTreeMap<String, Vec<Tier>> = BTreeMap::new();
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("readable");
        let path = file.to_str().expect("ASCII");
        let tests = fencepost_engine::catalog::tests_unchecked(path, &text).expect("parses");
        for test in tests {
            let scenario = test.name.splitn(3, '@').take(2).collect::<Vec<_>>().join("@");
            if scenario == "abi@sweep" {
                let target = test.name.split('/').next().unwrap_or_default();
                tiers.entry(target.to_owned()).or_default().push(test.tier);
            }
            tiers.entry(scenario).or_default().push(test.tier);
        }
    }
    assert!(tiers.len() > 100, "scenarios and ioctls were found");
    for (what, tiers) in tiers {
        let long = tiers.iter().all(|tier| *tier == Tier::Soak);
        assert!(long || tiers.contains(&Tier::Smoke), "{what} has no variant in tier smoke");
    }
}
