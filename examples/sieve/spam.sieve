# Runs before each user's own script. Mail that is filed here is not seen by it; all other mail is.
require ["fileinto", "spamtestplus", "relational", "comparator-i;ascii-numeric", "special-use"];
if spamtest :percent :value "ge" :comparator "i;ascii-numeric" "50" {
    fileinto :specialuse "\\Junk" "Junk";
}
