//! The crate as its users see it: hostile bytes in, messages or errors out.

#[cfg(test)]
mod bytes_in;
#[cfg(test)]
mod client_messages;
#[cfg(test)]
mod encoded;
#[cfg(test)]
mod large;
#[cfg(test)]
mod pipeline_model;
#[cfg(test)]
mod pipeline_rules;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod server_messages;
#[cfg(test)]
mod startup_packets;
