# What one user's own script may look like: put it with ManageSieve, or with sluice user.
require ["fileinto", "copy", "imap4flags", "include", "date", "relational"];

# The boss comes first, and a copy goes to the phone.
if address :is "From" "boss@example.org" {
    addflag "\\Flagged";
    redirect :copy "me@phone.example";
}
if header :contains "Subject" "invoice" {
    fileinto "Invoices";
    stop;
}
# In the first week of August.
if allof (currentdate :value "ge" "date" "2027-08-01", currentdate :value "le" "date" "2027-08-07") {
    include :global "away";
}
