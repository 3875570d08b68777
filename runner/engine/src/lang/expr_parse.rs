//! Text to [`Expr`]. Owns the grammar of expressions; which names exist is the caller's matter.
//!
//! From loose to tight: `||`, `&&`, comparisons, `|`, `^`, `&`, shifts, `+ -`, `* / %`, `! -`, then
//! numbers (`7`, `0x1f`, `4K`, `2M`, `1G`, `1T`), names, `name@OFFSET`, `rand(N)`, parentheses.

use super::expr::{EvalError, Expr, Op};

/// Deepest nesting of parentheses and signs.
const MAX_DEPTH: u32 = 40;
/// Most tokens in one expression.
const MAX_TOKENS: usize = 200;

/// A mistake in an expression, with its place in bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExprError {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) message: String,
    pub(crate) help: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Number(u64),
    Name(&'a str),
    Op(Op),
    Not,
    At,
    Open,
    Close,
}

type Spanned<'a> = (Token<'a>, usize, usize);

/// Parses all of `text`; names are kept as [`Expr::Var`] and constants are not folded.
pub(crate) fn parse(text: &str) -> Result<Expr, ExprError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, at: 0, end: text.len(), depth: 0 };
    if tokens.is_empty() {
        return Err(
            parser.error("a number or name is missing", "write for instance `4K` or `2*page`")
        );
    }
    let expr = parser.binary(0)?;
    if parser.at < tokens.len() {
        return Err(parser.error("the expression goes on unexpectedly", "put an operator here"));
    }
    Ok(expr)
}

/// Replaces names by what `constant` knows, and whatever is constant by its value.
pub(crate) fn fold(expr: Expr, constant: &dyn Fn(&str) -> Option<u64>) -> Result<Expr, EvalError> {
    let expr = substitute(expr, constant);
    match expr.eval(&mut super::expr::NoEnv) {
        Ok(value) => Ok(Expr::Const(value)),
        Err(EvalError::Unknown(_)) => Ok(expr),
        Err(error) => Err(error),
    }
}

fn substitute(expr: Expr, constant: &dyn Fn(&str) -> Option<u64>) -> Expr {
    let inside = |e: Box<Expr>| Box::new(substitute(*e, constant));
    match expr {
        Expr::Const(n) => Expr::Const(n),
        Expr::Var(name) => constant(&name).map_or(Expr::Var(name), Expr::Const),
        Expr::Content(memory, offset) => Expr::Content(memory, inside(offset)),
        Expr::Rand(bound) => Expr::Rand(inside(bound)),
        Expr::Not(inner) => Expr::Not(inside(inner)),
        Expr::Binary(op, left, right) => Expr::Binary(op, inside(left), inside(right)),
    }
}

fn tokens(text: &str) -> Result<Vec<Spanned<'_>>, ExprError> {
    let mut out = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let word = |from: usize| {
            let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            from + bytes[from..].iter().take_while(|b| is_word(b)).count()
        };
        let token = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' => {
                at += 1;
                continue;
            }
            b'0'..=b'9' => {
                at = word(at);
                Token::Number(number(&text[start..at]).map_err(|(message, help)| ExprError {
                    start,
                    end: at,
                    message,
                    help,
                })?)
            }
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
                at = word(at);
                Token::Name(&text[start..at])
            }
            _ => {
                let (token, length) = symbol(&text[at..]).ok_or_else(|| {
                    let found = text[at..].chars().next().unwrap_or(' ');
                    ExprError {
                        start,
                        end: start + found.len_utf8(),
                        message: format!("`{found}` has no place in an expression"),
                        help: "numbers, names, `+ - * / %`, comparisons and parentheses do".into(),
                    }
                })?;
                at += length;
                token
            }
        };
        out.push((token, start, at));
        if out.len() > MAX_TOKENS {
            let message = format!("more than {MAX_TOKENS} tokens");
            let help = "write a shorter expression".into();
            return Err(ExprError { start, end: at, message, help });
        }
    }
    Ok(out)
}

fn symbol(rest: &str) -> Option<(Token<'static>, usize)> {
    const SYMBOLS: &[(&str, Token<'static>)] = &[
        ("||", Token::Op(Op::LogicalOr)),
        ("&&", Token::Op(Op::LogicalAnd)),
        ("==", Token::Op(Op::Equal)),
        ("!=", Token::Op(Op::NotEqual)),
        ("<=", Token::Op(Op::LessEqual)),
        (">=", Token::Op(Op::GreaterEqual)),
        ("<<", Token::Op(Op::ShiftLeft)),
        (">>", Token::Op(Op::ShiftRight)),
        ("<", Token::Op(Op::Less)),
        (">", Token::Op(Op::Greater)),
        ("|", Token::Op(Op::BitOr)),
        ("^", Token::Op(Op::BitXor)),
        ("&", Token::Op(Op::BitAnd)),
        ("+", Token::Op(Op::Add)),
        ("-", Token::Op(Op::Sub)),
        ("*", Token::Op(Op::Mul)),
        ("/", Token::Op(Op::Div)),
        ("%", Token::Op(Op::Rem)),
        ("!", Token::Not),
        ("@", Token::At),
        ("(", Token::Open),
        (")", Token::Close),
    ];
    SYMBOLS.iter().find(|(s, _)| rest.starts_with(s)).map(|(s, token)| (*token, s.len()))
}

/// A number with its suffix; the error is message and help.
fn number(word: &str) -> Result<u64, (String, String)> {
    let range = || (format!("`{word}` is above 2^64 - 1"), "write a smaller number".to_owned());
    if let Some(digits) = word.strip_prefix("0x") {
        let digits = digits.replace('_', "");
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            let help = "after `0x` write the digits 0-9 and a-f".to_owned();
            return Err((format!("`{word}` is no hexadecimal number"), help));
        }
        return u64::from_str_radix(&digits, 16).map_err(|_| range());
    }
    let digits = word.bytes().take_while(|b| b.is_ascii_digit() || *b == b'_').count();
    let (digits, suffix) = word.split_at(digits);
    let shift = match suffix {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => {
            let upper = suffix.chars().next().map(|c| c.to_ascii_uppercase());
            let help = match upper {
                Some(unit @ ('K' | 'M' | 'G' | 'T')) => format!("write `{digits}{unit}`"),
                _ => "suffixes are K, M, G and T (powers of 1024)".to_owned(),
            };
            return Err((format!("`{suffix}` is no suffix of a number"), help));
        }
    };
    let value: u64 = digits.replace('_', "").parse().map_err(|_| range())?;
    value.checked_mul(1 << shift).ok_or_else(range)
}

struct Parser<'a> {
    tokens: &'a [Spanned<'a>],
    at: usize,
    end: usize,
    depth: u32,
}

/// Levels of [`Parser::binary`], loosest first.
const LEVELS: &[&[Op]] = &[
    &[Op::LogicalOr],
    &[Op::LogicalAnd],
    &[Op::Equal, Op::NotEqual, Op::Less, Op::LessEqual, Op::Greater, Op::GreaterEqual],
    &[Op::BitOr],
    &[Op::BitXor],
    &[Op::BitAnd],
    &[Op::ShiftLeft, Op::ShiftRight],
    &[Op::Add, Op::Sub],
    &[Op::Mul, Op::Div, Op::Rem],
];

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.at).map(|(token, ..)| *token)
    }

    fn error(&self, message: &str, help: &str) -> ExprError {
        let (start, end) =
            self.tokens.get(self.at).map_or((self.end, self.end), |(_, s, e)| (*s, *e));
        ExprError { start, end, message: message.into(), help: help.into() }
    }

    fn binary(&mut self, level: usize) -> Result<Expr, ExprError> {
        let Some(ops) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(Token::Op(op)) = self.peek()
            && ops.contains(&op)
        {
            self.at += 1;
            let right = self.binary(level + 1)?;
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, ExprError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error("too deeply nested", "write a simpler expression"));
        }
        let result = match self.peek() {
            Some(Token::Not) => {
                self.at += 1;
                self.unary().map(|e| Expr::Not(Box::new(e)))
            }
            Some(Token::Op(Op::Sub)) => {
                self.at += 1;
                let zero = Box::new(Expr::Const(0));
                self.unary().map(|e| Expr::Binary(Op::Sub, zero, Box::new(e)))
            }
            _ => self.primary(),
        };
        self.depth -= 1;
        result
    }

    fn primary(&mut self) -> Result<Expr, ExprError> {
        let token = self.peek();
        match token {
            Some(Token::Number(n)) => {
                self.at += 1;
                Ok(Expr::Const(n))
            }
            Some(Token::Open) => {
                self.at += 1;
                self.parenthesised()
            }
            Some(Token::Name(name)) => {
                self.at += 1;
                self.named(name)
            }
            _ => {
                Err(self
                    .error("a number or name is missing here", "write one, or remove the operator"))
            }
        }
    }

    fn named(&mut self, name: &str) -> Result<Expr, ExprError> {
        match self.peek() {
            Some(Token::Open) if name == "rand" => {
                self.at += 1;
                Ok(Expr::Rand(Box::new(self.parenthesised()?)))
            }
            Some(Token::Open) => {
                Err(self.error("the only function is `rand(N)`", "put an operator before `(`"))
            }
            Some(Token::At) => {
                self.at += 1;
                Ok(Expr::Content(name.to_owned(), Box::new(self.unary()?)))
            }
            _ => Ok(Expr::Var(name.to_owned())),
        }
    }

    fn parenthesised(&mut self) -> Result<Expr, ExprError> {
        let inner = self.binary(0)?;
        if self.peek() != Some(Token::Close) {
            return Err(self.error("`)` is missing", "close the parenthesis"));
        }
        self.at += 1;
        Ok(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<u64> {
        let constant = |name: &str| (name == "page").then_some(4096);
        fold(parse(text).ok()?, &constant).ok()?.constant()
    }

    #[test]
    fn evaluates_by_precedence() {
        let table = [
            ("7", 7),
            ("0x10", 16),
            ("1_000", 1000),
            ("4K", 4096),
            ("2M", 2 << 20),
            ("1G", 1 << 30),
            ("1T", 1 << 40),
            ("2 + 3 * 4", 14),
            ("(2 + 3) * 4", 20),
            ("2 - 3 + 4", 3),
            ("10 - 2 - 3", 5),
            ("page*2 + 8", 8200),
            ("1 << 4 | 1", 17),
            ("6 & 3 == 2", 1),
            ("1 == 1 && 2 > 3", 0),
            ("0 && 1/0", 0),
            ("!0 || 0", 1),
            ("7 % 4 ^ 1", 2),
            ("0xffffffffffffffff", u64::MAX),
        ];
        for (text, expected) in table {
            assert_eq!(value(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn reports_the_place_of_a_mistake() {
        let table = [
            ("", 0, 0),
            ("4KB", 0, 3),
            ("1 + ", 4, 4),
            ("1 $ 2", 2, 3),
            ("(1", 2, 2),
            ("1 2", 2, 3),
            ("f(1)", 1, 2),
            ("0xg", 0, 3),
            ("99999999999999999999", 0, 20),
        ];
        for (text, start, end) in table {
            let error = parse(text).expect_err(text);
            assert_eq!((error.start, error.end), (start, end), "{text}: {error:?}");
        }
    }

    #[test]
    fn out_of_range_is_an_error_only_at_the_end() {
        assert_eq!(value("1 - 2"), None);
        assert_eq!(value("1 - 2 + 1"), Some(0));
        assert_eq!(value("1/0"), None);
        assert_eq!(value("1 << 64"), None);
    }

    #[test]
    fn keeps_names_of_run_time() {
        let expr = parse("a@8 + i*4 + rand(4)").expect("parses");
        assert_eq!(expr.constant(), None);
        assert_eq!(expr.to_string(), "((a@(8) + (i * 4)) + rand(4))");
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse(&"(".repeat(500)).is_err());
        assert!(parse(&"-".repeat(150)).is_err());
    }
}
