//! The JSON Schema of a scenario, for completion and checks in editors, made from the tables that
//! the parser reads. Weaker than the checker: names and expressions are only text to it.

use super::grammar::{Key, SCENARIO, Shape, Ty};
use super::verbs::{EXPECT_KEYS, STEP_KEYS};
use super::words::{COMMAND_WORDS, EXPECT_WORDS, STEP_WORDS, Word, Words};
use serde_json::{Map, Value, json};

/// The schema, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut defs = Map::new();
    defs.insert("param".into(), json!({ "type": "string", "pattern": "\\$" }));
    defs.insert("expr".into(), json!({ "type": ["integer", "string"] }));
    defs.insert("compact".into(), json!({ "type": ["string", "integer"] }));
    defs.insert(
        "time".into(),
        json!({ "type": "string", "pattern": "^[0-9]+(ns|us|ms|s|m)$|\\$" }),
    );
    for (name, list, common) in [
        ("step", &*STEP_WORDS, STEP_KEYS),
        ("command", &*COMMAND_WORDS, &[]),
        ("expect", &*EXPECT_WORDS, EXPECT_KEYS),
    ] {
        let value = words(list, common, &mut defs);
        defs.insert(name.into(), value);
    }
    let mut root = shape(&SCENARIO, &mut defs);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("fencepost scenario");
    root["$defs"] = Value::Object(defs);
    root
}

/// The schema as text.
#[must_use]
pub fn schema_text() -> String {
    let mut text = serde_json::to_string_pretty(&schema()).unwrap_or_default();
    text.push('\n');
    text
}

fn shape(shape: &Shape, defs: &mut Map<String, Value>) -> Value {
    let keys: Vec<&Key> = shape.keys.iter().collect();
    let required = keys.iter().filter(|k| k.required).map(|k| k.name).collect();
    object(&keys, required, shape.doc, defs)
}

fn object(keys: &[&Key], required: Vec<&str>, doc: &str, defs: &mut Map<String, Value>) -> Value {
    let mut properties = Map::new();
    for key in keys {
        properties.insert(key.name.into(), described(ty(key.ty, defs), key.doc));
    }
    json!({
        "type": "object",
        "description": doc,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn described(mut value: Value, doc: &str) -> Value {
    value["description"] = json!(doc);
    value
}

fn words(list: &Words, common: &'static [Key], defs: &mut Map<String, Value>) -> Value {
    let all: Vec<Value> = list.list.iter().map(|w| word(w, common, defs)).collect();
    json!({ "anyOf": all })
}

fn word(word: &Word, common: &'static [Key], defs: &mut Map<String, Value>) -> Value {
    let keys: Vec<&Key> = word.beside.iter().copied().chain(common).collect();
    let keys: Vec<&Key> = keys.into_iter().filter(|k| k.name != word.name).collect();
    // What is required may stand in the long form of the value instead.
    let mut out = object(&keys, vec![word.name.as_str()], &word.doc, defs);
    let doc = format!("{}\n\n{}", word.doc, word.example);
    out["properties"][&word.name] = described(verb_value(word.value, defs), &doc);
    out
}

fn verb_value(value: Ty, defs: &mut Map<String, Value>) -> Value {
    match value {
        Ty::Compact(_) => json!({ "type": ["string", "integer", "object", "null"] }),
        other => ty(other, defs),
    }
}

fn ty(of: Ty, defs: &mut Map<String, Value>) -> Value {
    let param = json!({ "$ref": "#/$defs/param" });
    let with_param = |value: Value| json!({ "anyOf": [value, param] });
    match of {
        Ty::Expr => json!({ "$ref": "#/$defs/expr" }),
        Ty::Text => json!({ "type": ["string", "number"] }),
        Ty::Bool => with_param(json!({ "type": "boolean" })),
        Ty::Time => json!({ "$ref": "#/$defs/time" }),
        Ty::Word(words) => {
            // YAML reads `width: 4` as a number.
            let numbers: Vec<u64> = words.iter().filter_map(|w| w.parse().ok()).collect();
            let mut all: Vec<Value> = words.iter().map(|w| json!(w)).collect();
            all.extend(numbers.iter().map(|n| json!(n)));
            with_param(json!({ "enum": all }))
        }
        Ty::Name => json!({ "type": "string" }),
        Ty::Names => many(json!({ "type": "string" })),
        Ty::Compact(what) => json!({ "$ref": "#/$defs/compact", "$comment": what }),
        Ty::CompactOr(what, shape) => {
            let value = shape_ref(shape, defs);
            let compact = json!({ "$ref": "#/$defs/compact", "$comment": what });
            json!({ "anyOf": [value, compact, { "type": "null" }] })
        }
        Ty::Either(one, other) => json!({ "anyOf": [ty(*one, defs), ty(*other, defs)] }),
        Ty::Shape(shape) => {
            let value = shape_ref(shape, defs);
            json!({ "anyOf": [value, { "type": "null" }, param] })
        }
        Ty::MapOf(inner) => {
            let value = ty(*inner, defs);
            with_param(json!({ "type": "object", "additionalProperties": value }))
        }
        Ty::Named(inner) => {
            let value = ty(*inner, defs);
            json!({ "anyOf": [
                { "type": "object", "additionalProperties": value },
                { "type": "array", "items": { "type": "string" } },
                param,
            ] })
        }
        Ty::StepsOr(shape) => {
            let value = shape_ref(shape, defs);
            json!({ "anyOf": [value, list_of("step"), param] })
        }
        Ty::List(inner) => {
            let value = ty(*inner, defs);
            with_param(json!({ "type": "array", "items": value }))
        }
        Ty::Many(inner) => many(ty(*inner, defs)),
        Ty::Steps => with_param(list_of("step")),
        Ty::Commands => json!({ "anyOf": [
            list_of("command"),
            { "type": "array", "items": { "anyOf": [list_of("command"), { "type": "object" }] } },
            { "type": "object" },
            param,
        ] }),
        Ty::Expects => {
            let one = json!({ "$ref": "#/$defs/expect" });
            json!({ "anyOf": [list_of("expect"), one, param] })
        }
        Ty::Nothing => json!({ "type": "null" }),
        Ty::Any => json!({}),
    }
}

fn many(value: Value) -> Value {
    json!({ "anyOf": [value, { "type": "array", "items": value }] })
}

fn list_of(name: &str) -> Value {
    let item = json!({ "$ref": format!("#/$defs/{name}") });
    let param = json!({ "$ref": "#/$defs/param" });
    json!({ "type": "array", "items": { "anyOf": [item, param] } })
}

fn shape_ref(of: &Shape, defs: &mut Map<String, Value>) -> Value {
    let name = of.name.replace(' ', "_");
    if !defs.contains_key(&name) {
        // Entered first: shapes may hold themselves.
        defs.insert(name.clone(), Value::Null);
        let value = shape(of, defs);
        defs.insert(name.clone(), value);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_is_defined() {
        let schema = schema();
        let text = schema.to_string();
        for part in text.split("\"#/$defs/").skip(1) {
            let name = part.split('"').next().expect("a name");
            assert!(schema["$defs"][name].is_object(), "{name} is not defined");
        }
        assert!(text.contains("cpu.atomic_add"));
    }
}
