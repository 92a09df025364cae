# A mail has come into Junk, by a client's APPEND, COPY or MOVE.
require ["imapsieve", "vnd.dovecot.pipe", "copy"];
pipe :copy "learn" "learn_spam";
