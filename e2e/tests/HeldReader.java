import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

/** Reads one statement's rows with pgjdbc and says on one line how many came, how it ended, and what the connection can do after. */
public class HeldReader {
    public static void main(String[] words) throws Exception {
        Properties options = new Properties();
        options.setProperty("user", System.getenv("PGUSER"));
        options.setProperty("password", System.getenv("PGPASSWORD"));
        options.setProperty("sslmode", System.getenv("PGSSLMODE"));
        options.setProperty("socketTimeout", words[1]);
        int fetchSize = Integer.parseInt(words[2]);
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
        try (Connection connection = DriverManager.getConnection(url, options)) {
            connection.setAutoCommit(fetchSize == 0);
            int rows = 0;
            String ended = "ok";
            try (Statement statement = connection.createStatement()) {
                statement.setFetchSize(fetchSize);
                try (ResultSet result = statement.executeQuery(words[0])) {
                    while (result.next()) {
                        result.getString(2);
                        rows++;
                    }
                }
            } catch (SQLException error) {
                ended = error.getSQLState();
            }
            if (fetchSize != 0) {
                connection.rollback();
            }
            try (Statement statement = connection.createStatement(); ResultSet result = statement.executeQuery("SELECT count(*) FROM held.notes")) {
                result.next();
                System.out.println(rows + " " + ended + " " + result.getInt(1));
            }
        }
    }
}
