//! Names of people who do not exist; chosen for this project.

/// Given names.
pub(crate) const FIRST: [&str; 182] = [
    "Adaeze", "Adrian", "Agnes", "Ahmed", "Aiko", "Alba", "Alejandro", "Alena", "Alisha", "Amara", "Amir",
    "Amelie", "Anders", "Andrea", "Anika", "Anna", "Antoine", "Anwar", "Ariana", "Arjun", "Arturo", "Asha",
    "Astrid", "Aurora", "Ayesha", "Azra", "Beatriz", "Benedikt", "Bianca", "Bilal", "Birgit", "Bogdan",
    "Brigid", "Bruno", "Camila", "Carlos", "Carmen", "Cecilia", "Chen", "Chidi", "Chiara", "Cillian",
    "Claudia", "Clement", "Cora", "Cyrus", "Dagny", "Dalia", "Damian", "Daniela", "Darius", "Deepa",
    "Delphine", "Diego", "Dina", "Dmitri", "Dolores", "Edda", "Eduardo", "Efua", "Eileen", "Elena", "Elias",
    "Elif", "Emeka", "Emil", "Enzo", "Erika", "Esme", "Esther", "Etienne", "Eva", "Fabian", "Farah", "Fatima",
    "Felix", "Femi", "Filip", "Fiona", "Florian", "Freya", "Gabriel", "Gaia", "Gareth", "Gemma", "Giorgio",
    "Grace", "Greta", "Gustav", "Hadiya", "Hana", "Harald", "Hassan", "Hedda", "Heidi", "Helena", "Henrik",
    "Hugo", "Ibrahim", "Ida", "Ignacio", "Ilse", "Imani", "Ines", "Ingrid", "Irina", "Isaac", "Isla", "Ivan",
    "Jamal", "Jana", "Jasmin", "Javier", "Jelena", "Joana", "Joaquin", "Johan", "Josefine", "Juliana", "Kai",
    "Kamala", "Karim", "Katya", "Keiko", "Kenji", "Kiran", "Klara", "Kofi", "Lars", "Latifa", "Laura", "Leif",
    "Leila", "Liam", "Lina", "Linnea", "Lorenzo", "Lucia", "Magnus", "Malik", "Manuela", "Marek", "Margit",
    "Mariam", "Marta", "Mateo", "Mei", "Milan", "Mina", "Mira", "Nadia", "Naomi", "Nikhil", "Nils", "Nina",
    "Noor", "Oksana", "Olga", "Omar", "Oscar", "Paloma", "Pavel", "Petra", "Priya", "Rafael", "Rania", "Ravi",
    "Rosa", "Ruben", "Saskia", "Selma", "Sven", "Tamar", "Tariq", "Teresa", "Tomas", "Uma", "Viktor", "Wanda",
    "Yara", "Yusuf", "Zofia",
];

/// Family names.
pub(crate) const LAST: [&str; 100] = [
    "Abara", "Abbott", "Acosta", "Adeyemi", "Albrecht", "Alvarado", "Amari", "Andersson", "Aoki", "Arslan",
    "Asante", "Bakker", "Banerjee", "Barros", "Bauer", "Becker", "Bellini", "Bergman", "Bianchi", "Blanc",
    "Brandt", "Bruun", "Cabrera", "Castellano", "Chaudhry", "Chow", "Conti", "Cordero", "Dahl", "Delacroix",
    "Demir", "Desai", "Diallo", "Dimitrov", "Dubois", "Duarte", "Ekstrom", "Engel", "Eriksen", "Esposito",
    "Farouk", "Ferrari", "Fischer", "Fontaine", "Forsberg", "Fujita", "Galvez", "Garza", "Gupta", "Haddad",
    "Hansen", "Hayashi", "Herrera", "Hoffmann", "Horvat", "Ibarra", "Iyer", "Jansen", "Jensen", "Kapoor",
    "Kaya", "Keller", "Khan", "Kimura", "Kowalski", "Kruger", "Larsen", "Lindqvist", "Lombardi", "Mahmoud",
    "Marino", "Mbeki", "Medina", "Mehta", "Moreau", "Mori", "Mwangi", "Nakamura", "Navarro", "Nowak", "Nwosu",
    "Okafor", "Olsen", "Oyelaran", "Park", "Patel", "Petrov", "Popescu", "Quispe", "Rahman", "Rossi", "Sato",
    "Schmitt", "Silva", "Sokolov", "Takeda", "Tanaka", "Ueda", "Vargas", "Weber",
];
