//! What a container of any flavour does by what it gives access to: showing, comparing, walking.
//!
//! Owns the impls that need nothing but `Deref`.

use super::{Arc, Box, Vec};
use core::fmt;

macro_rules! shown {
    ($($container:ident)+) => {
        $(impl<T: fmt::Debug> fmt::Debug for $container<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&**self, f)
            }
        })+
    };
}
shown!(Vec Box Arc);

macro_rules! compared {
    ($($container:ident)+) => {
        $(impl<T: PartialEq> PartialEq for $container<T> {
            fn eq(&self, other: &Self) -> bool {
                **self == **other
            }
        }

        impl<T: Eq> Eq for $container<T> {})+
    };
}
compared!(Vec Box);

impl<T> Default for Vec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T> IntoIterator for &'a Vec<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut Vec<T> {
    type Item = &'a mut T;
    type IntoIter = core::slice::IterMut<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}
