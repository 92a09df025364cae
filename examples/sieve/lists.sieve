# Runs after each user's own script, for mail that it has left in the inbox, and for users who have none.
require ["fileinto", "variables", "mailbox"];
if header :matches "List-Id" "*<*.*>*" {
    fileinto :create "Lists/${2}";
}
