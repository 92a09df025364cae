// Package pipeline decides about mail. A [Plan] is a configured list of steps, each of one or more stages; a [Session]
// takes a client's conversation through it and says for each recipient what shall become of the message, and why.
//
// Stages find facts, hold rules, or look at what earlier ones found. The plan works out from what a stage reads when it
// can first be asked; stages are asked at once, and the outcome is the one they would give one by one in the configured
// order. Doors (SMTP, LMTP, milter) drive sessions and carry out what was decided.
package pipeline
