//! How far a JMESPath expression can multiply what it is applied to.
//!
//! `[@,@]|[@,@]|…` doubles its input every six bytes: within the limit on length it would fill any
//! memory, and a process that runs out of memory cannot answer with an error.

use jpx_core::ast::Ast;

/// Most copies of the secret that a result may hold.
pub(super) const MAX_COPIES: u64 = 64;

/// The most copies of its input that an expression's result can hold; saturating.
pub(super) fn copies(ast: &Ast) -> u64 {
    let sum = |parts: &mut dyn Iterator<Item = u64>| {
        parts.fold(0_u64, |all, one| all.saturating_add(one)).max(1)
    };
    match ast {
        Ast::Comparison { .. }
        | Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Not { .. }
        | Ast::Slice { .. } => 1,
        Ast::Expref { ast, .. } => copies(ast),
        Ast::Flatten { node, .. } | Ast::ObjectValues { node, .. } => copies(node),
        Ast::MultiList { elements, .. } => sum(&mut elements.iter().map(copies)),
        Ast::MultiHash { elements, .. } => sum(&mut elements.iter().map(|e| copies(&e.value))),
        Ast::And { lhs, rhs, .. } | Ast::Or { lhs, rhs, .. } => copies(lhs).max(copies(rhs)),
        Ast::Subexpr { lhs, rhs, .. } | Ast::Projection { lhs, rhs, .. } => {
            copies(lhs).saturating_mul(copies(rhs))
        }
        Ast::Condition {
            predicate, then, ..
        } => copies(predicate).saturating_mul(copies(then)),
        // `map(&expression, list)` and its like apply one argument to the other.
        Ast::Function { args, .. } => {
            if args.iter().any(|arg| matches!(arg, Ast::Expref { .. })) {
                args.iter()
                    .fold(1, |all: u64, arg| all.saturating_mul(copies(arg)))
            } else {
                sum(&mut args.iter().map(copies))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(expression: &str) -> u64 {
        copies(jpx_core::compile(expression).unwrap().as_ast())
    }

    #[test]
    fn doubling_is_seen_however_it_is_written() {
        for (expression, expected) in [
            ("a.b[0].c", 1),
            ("a || b || c", 1),
            ("[a, b, c]", 3),
            ("{a: @, b: @}", 2),
            ("list[?a > `1`].{n: name, p: port}", 2),
            ("[@,@]|[@,@]|[@,@]", 8),
            ("{a:@,b:@}.{a:@,b:@}", 4),
            ("map(&[@,@], [@,@])", 4),
            ("[@,@] && [@,@,@]", 3),
            ("not_null(a, b)", 2),
        ] {
            assert_eq!(of(expression), expected, "{expression}");
        }
        assert!(of(&["[@,@]"; 85].join("|")) > u64::MAX / 2);
    }
}
