//! The store on real files, as its callers use it.

#[cfg(test)]
mod archive;
#[cfg(test)]
mod aside;
#[cfg(test)]
mod common;
#[cfg(test)]
mod erasure;
#[cfg(test)]
mod failure;
#[cfg(test)]
mod index;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod record;
#[cfg(test)]
mod requests;
#[cfg(test)]
mod retention;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod server;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod state;
#[cfg(test)]
mod tree;
#[cfg(test)]
mod verify;
