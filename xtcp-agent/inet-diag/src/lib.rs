//! inet_diag messages.
#![no_std]
#![forbid(unsafe_code)]
