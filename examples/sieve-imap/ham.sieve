# A mail has come back from Junk into the inbox. Moved to Trash it would be no better for it.
require ["imapsieve", "environment", "vnd.dovecot.pipe", "copy", "imap4flags"];
if environment "imap.mailbox" "INBOX" {
    pipe :copy "learn" "learn_ham";
    removeflag "$Junk";
    addflag "$NotJunk";
}
