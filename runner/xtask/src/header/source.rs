//! Reads the text of a uAPI source: its sections, constants and records in their order. It knows
//! the few forms that those files use, and refuses a constant that it does not understand.

/// Something that the header has a place for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// A headline: `// ---- name ----`.
    Section(String),
    /// `pub const NAME: type = value;`
    Constant(Constant),
    /// `pub struct Name("c_name")` within `record!`: its names in Rust and in C.
    Record { rust: String, c: String },
}

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Constant {
    /// Name in Rust.
    pub(super) name: String,
    /// Value.
    pub(super) value: u64,
    /// The value as C writes it.
    pub(super) c: String,
    /// Its documentation in rustdoc.
    pub(super) doc: String,
}

/// Reads a source.
pub(super) fn parse(text: &str) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    let mut doc = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(more) = line.strip_prefix("///") {
            doc.push_str(more.trim());
            doc.push('\n');
            continue;
        }
        if let Some(section) = line.strip_prefix("// ----") {
            items.push(Item::Section(section.trim_matches(['-', ' ']).to_owned()));
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let mut parts = rest.split(['(', '"', ')']);
            if let (Some(rust), Some(_), Some(c)) = (parts.next(), parts.next(), parts.next()) {
                items.push(Item::Record { rust: rust.to_owned(), c: c.to_owned() });
            }
        } else if let Some(rest) = line.strip_prefix("pub const ")
            && let Some(constant) = constant(rest, &doc)?
        {
            items.push(Item::Constant(constant));
        }
        doc.clear();
    }
    Ok(items)
}

/// Reads `NAME: type = value;`; none for what is no number.
fn constant(text: &str, doc: &str) -> Result<Option<Constant>, String> {
    // Macros have `$name` where constants have a name.
    let Some((name, rest)) = text.split_once(':').filter(|(name, _)| is_name(name)) else {
        return Ok(None);
    };
    let Some((kind, value)) = rest.split_once('=') else { return Ok(None) };
    let suffix = match kind.trim() {
        "u8" | "u16" | "u32" => "",
        "u64" => "ULL",
        _ => return Ok(None),
    };
    let value = value.trim().trim_end_matches(';');
    let unclear = || format!("cannot read the value of {name}: {value}");
    let (number, c) = match value.split_once("<<") {
        Some((bits, shift)) => {
            let (bits, shift) =
                (number(bits).ok_or_else(unclear)?, number(shift).ok_or_else(unclear)?);
            (bits << shift, format!("({bits}{suffix} << {shift})"))
        }
        None => {
            let number = number(value).ok_or_else(unclear)?;
            (number, format!("{number}{suffix}"))
        }
    };
    Ok(Some(Constant { name: name.to_owned(), value: number, c, doc: doc.trim().to_owned() }))
}

fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim().replace('_', "");
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}
