//! Arithmetic of the scenario language: one expression type for sizes, addresses, values and
//! conditions. Owns evaluation; parsing is in `expr_parse`, the meaning of names in the caller.

use std::fmt;

/// A number or a condition (0 is false, anything else true).
///
/// Parameters, `base`, `unit` and `page` are replaced before a test is built, so most expressions
/// that the interpreter meets are [`Expr::Const`]. What is left are names known at run time only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// A number.
    Const(u64),
    /// A name known at run time: a loop index (`repeat: 8, as: i`), the result of an earlier read
    /// (`as: r1`), or `va_end` of a VM that states none.
    Var(String),
    /// `a@OFFSET`: what the 8 bytes at that byte offset of memory `a` hold now, by the oracle.
    Content(String, Box<Expr>),
    /// `rand(N)`: a number below N from the actor's own random stream.
    Rand(Box<Expr>),
    /// Negation, `!x`: 1 if x is 0, else 0.
    Not(Box<Expr>),
    /// Two operands.
    Binary(Op, Box<Expr>, Box<Expr>),
}

/// Operators, loosest first. Arithmetic is exact and must end in 0 to 2^64 - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the operators are their own documentation")]
pub enum Op {
    LogicalOr,
    LogicalAnd,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    BitOr,
    BitXor,
    BitAnd,
    ShiftLeft,
    ShiftRight,
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Division or remainder by zero, or `rand(0)`.
    #[error("division by zero")]
    DivideByZero,
    /// Below 0 or above 2^64 - 1, or a shift by more than 63.
    #[error("out of the range 0 to 2^64 - 1")]
    Range,
    /// The environment does not know the name.
    #[error("`{0}` has no value here")]
    Unknown(String),
}

/// What names mean while an expression is evaluated.
pub trait Env {
    /// Value of a variable.
    fn var(&mut self, name: &str) -> Option<u64>;
    /// Content of a memory object's word at a byte offset.
    fn content(&mut self, memory: &str, offset: u64) -> Option<u64>;
    /// A random number below `bound` (which is not 0).
    fn rand(&mut self, bound: u64) -> Option<u64>;
}

/// An environment that knows nothing: only constant expressions have a value in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEnv;

impl Env for NoEnv {
    fn var(&mut self, _: &str) -> Option<u64> {
        None
    }
    fn content(&mut self, _: &str, _: u64) -> Option<u64> {
        None
    }
    fn rand(&mut self, _: u64) -> Option<u64> {
        None
    }
}

impl Expr {
    /// The value if it is known without running the test.
    #[must_use]
    pub fn constant(&self) -> Option<u64> {
        match self {
            Expr::Const(n) => Some(*n),
            other => other.eval(&mut NoEnv).ok(),
        }
    }

    /// Evaluates.
    ///
    /// # Errors
    /// See [`EvalError`].
    pub fn eval(&self, env: &mut dyn Env) -> Result<u64, EvalError> {
        u64::try_from(self.wide(env)?).map_err(|_| EvalError::Range)
    }

    /// Intermediate results may be negative (`2 - 3 + 4`), so they are kept wider.
    fn wide(&self, env: &mut dyn Env) -> Result<i128, EvalError> {
        match self {
            Expr::Const(n) => Ok(i128::from(*n)),
            Expr::Var(name) => {
                let value = env.var(name).ok_or_else(|| EvalError::Unknown(name.clone()))?;
                Ok(i128::from(value))
            }
            Expr::Content(memory, offset) => {
                let offset = offset.eval(env)?;
                let value = env.content(memory, offset);
                Ok(i128::from(value.ok_or_else(|| EvalError::Unknown(memory.clone()))?))
            }
            Expr::Rand(bound) => match bound.eval(env)? {
                0 => Err(EvalError::DivideByZero),
                bound => {
                    let value = env.rand(bound).ok_or_else(|| EvalError::Unknown("rand".into()))?;
                    Ok(i128::from(value))
                }
            },
            Expr::Not(inner) => Ok(i128::from(inner.wide(env)? == 0)),
            Expr::Binary(op, left, right) => binary(*op, left, right, env),
        }
    }

    /// Calls `f` for this expression and every one inside it.
    pub fn visit(&self, f: &mut dyn FnMut(&Expr)) {
        f(self);
        match self {
            Expr::Const(_) | Expr::Var(_) => {}
            Expr::Content(_, inner) | Expr::Rand(inner) | Expr::Not(inner) => inner.visit(f),
            Expr::Binary(_, left, right) => {
                left.visit(f);
                right.visit(f);
            }
        }
    }
}

fn binary(op: Op, left: &Expr, right: &Expr, env: &mut dyn Env) -> Result<i128, EvalError> {
    let a = left.wide(env)?;
    // Both sides are conditions: the right one may be meaningless when the left decides.
    match op {
        Op::LogicalOr if a != 0 => return Ok(1),
        Op::LogicalAnd if a == 0 => return Ok(0),
        _ => {}
    }
    let b = right.wide(env)?;
    let truth = |x: bool| Ok(i128::from(x));
    match op {
        Op::LogicalOr | Op::LogicalAnd => truth(b != 0),
        Op::Equal => truth(a == b),
        Op::NotEqual => truth(a != b),
        Op::Less => truth(a < b),
        Op::LessEqual => truth(a <= b),
        Op::Greater => truth(a > b),
        Op::GreaterEqual => truth(a >= b),
        Op::BitOr => Ok(a | b),
        Op::BitXor => Ok(a ^ b),
        Op::BitAnd => Ok(a & b),
        Op::ShiftLeft => match u32::try_from(b) {
            Ok(bits @ 0..=63) => a.checked_mul(1 << bits).ok_or(EvalError::Range),
            _ => Err(EvalError::Range),
        },
        Op::ShiftRight => match u32::try_from(b) {
            Ok(bits @ 0..=63) => Ok(a >> bits),
            _ => Err(EvalError::Range),
        },
        Op::Add => a.checked_add(b).ok_or(EvalError::Range),
        Op::Sub => a.checked_sub(b).ok_or(EvalError::Range),
        Op::Mul => a.checked_mul(b).ok_or(EvalError::Range),
        Op::Div => a.checked_div(b).ok_or(EvalError::DivideByZero),
        Op::Rem => a.checked_rem(b).ok_or(EvalError::DivideByZero),
    }
}

impl Op {
    /// How it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Op::LogicalOr => "||",
            Op::LogicalAnd => "&&",
            Op::Equal => "==",
            Op::NotEqual => "!=",
            Op::Less => "<",
            Op::LessEqual => "<=",
            Op::Greater => ">",
            Op::GreaterEqual => ">=",
            Op::BitOr => "|",
            Op::BitXor => "^",
            Op::BitAnd => "&",
            Op::ShiftLeft => "<<",
            Op::ShiftRight => ">>",
            Op::Add => "+",
            Op::Sub => "-",
            Op::Mul => "*",
            Op::Div => "/",
            Op::Rem => "%",
        }
    }
}

/// As one could write it in a scenario; small numbers in decimal, large ones in hexadecimal.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Const(n) if *n < 4096 => write!(f, "{n}"),
            Expr::Const(n) => write!(f, "{n:#x}"),
            Expr::Var(name) => f.write_str(name),
            Expr::Content(memory, offset) => write!(f, "{memory}@({offset})"),
            Expr::Rand(bound) => write!(f, "rand({bound})"),
            Expr::Not(inner) => write!(f, "!({inner})"),
            Expr::Binary(op, left, right) => write!(f, "({left} {} {right})", op.symbol()),
        }
    }
}

impl From<u64> for Expr {
    fn from(n: u64) -> Self {
        Expr::Const(n)
    }
}
