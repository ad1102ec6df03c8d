//! The store on real files, as its callers use it.

#[cfg(test)]
mod common;
#[cfg(test)]
mod failure;
#[cfg(test)]
mod record;
#[cfg(test)]
mod state;
