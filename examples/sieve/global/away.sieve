# For all: require "include"; include :global "away";
require "vacation";
vacation :days 7 "I am away and will read your mail when I am back.";
