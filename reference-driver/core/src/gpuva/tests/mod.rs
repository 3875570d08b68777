//! Tests of the VA manager.
