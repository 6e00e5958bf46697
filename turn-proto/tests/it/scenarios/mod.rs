//! What happens between client and server, from end to end, one test for each of the 25 scenarios
//! (their numbers stand in the names). Scenarios with a server of another kind are in `scripted`.

mod allocation;
mod credentials;
mod data;
mod moving;
mod reliability;
mod resolver;
mod tcp;
